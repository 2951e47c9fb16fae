"""Whether a run fits into memory, and what would make it smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from coterie.errors import NotEnoughMemory
from coterie.learners.contract import Algorithm
from coterie.training.devices import Devices
from coterie.training.memory import check_memory
from coterie.views.game import Game

if TYPE_CHECKING:
    from coterie.python_envs.training import HostDevice

LARGER_MACHINE = "free some, or resume on a larger machine"
OF_STATE = ("buffer_size", "environments", "hidden")
OF_WORK = ("environments", "rollout_steps", "batch_size", "sequence_length", "hidden")
"""Settings that memory grows with, as far as an algorithm has them."""


def smaller(algorithm: Algorithm, game: Game, settings: tuple[str, ...]) -> str:
    """What to do to need less memory, as the end of a sentence."""
    known = [name for name in settings if hasattr(algorithm, name)]
    if not getattr(algorithm, "recurrent", False):
        known = [name for name in known if name != "sequence_length"]
    flags = [_flag(name, getattr(algorithm, name)) for name in known]
    advice = f"lower {', '.join(flags)} or --seeds"
    if settings is OF_WORK and hasattr(algorithm, "minibatches"):
        advice += ", or raise --minibatches"
    if game.central == "joint" and game.players.central_size:
        advice += ", or choose --central state, which is smaller"
    return advice


def _flag(name: str, value: Any) -> str:
    """A setting's flag, with its value where that is a single number."""
    flag = f"--{name.replace('_', '-')}"
    return f"{flag} (now {value:,})" if isinstance(value, int) else flag


def check_state(devices: Devices | HostDevice, advice: str = "") -> int:
    """The bytes of a run's state; NotEnoughMemory unless they are free."""
    program = devices.program
    advice = advice or smaller(program.algorithm, program.game, OF_STATE)
    check_memory(needed := devices.bytes(), advice)
    return needed


def check_work(devices: Devices | HostDevice, state: int, advice: str = "") -> None:
    """NotEnoughMemory unless a run's compiled functions can work, too; compiles them.

    Args:
        state: bytes of the state that are not allocated yet.
    """
    program = devices.program
    advice = advice or smaller(program.algorithm, program.game, OF_WORK)
    try:
        working = devices.working_bytes()
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith(("UNIMPLEMENTED", "RESOURCE_EXHAUSTED")):
            raise
        raise NotEnoughMemory(
            f"programs for arrays so large cannot be compiled: {advice}"
        ) from error
    check_memory(state + working, advice, working)
