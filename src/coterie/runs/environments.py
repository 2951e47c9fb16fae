"""Environments as users give them, opened; and as an algorithm sees them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Literal, TypeGuard

from coterie import jax_envs
from coterie.algorithms import algorithms
from coterie.envs.base import Environment
from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.learners.parts import LearnerSettings, VectorSettings
from coterie.module_paths import is_code
from coterie.networks import torsos
from coterie.python_envs.adapters.lookup import with_options
from coterie.python_envs.adapters.refusals import reason
from coterie.python_envs.opening import (
    find_factory,
    is_python_environment,
    make_one,
    open_in_other_python,
    open_python_env,
)
from coterie.python_envs.settings import PythonEnvSettings
from coterie.python_envs.workers.pool import copies_of
from coterie.runs.compilation_cache import keep_compiled_programs
from coterie.spec import EnvSpec, PythonEnvFactory, Reward
from coterie.views.game import Central, Game
from coterie.views.preprocessing import UNCHANGED, Preprocessing

Opened = Any
"""An environment as a user gives it: a name, the thing itself, or what makes it; a JAX environment
or a Python environment."""


def is_python_env(name: str) -> bool:
    """Whether a name can only mean a Python environment."""
    return name.startswith(("gymnasium:", "pettingzoo:"))


def sizes(spec: Any) -> dict[str, list[Any]]:
    """What has to agree between the environments a team can act in."""
    kept: dict[str, Any] = {}
    if spec.observations:
        kept["observations"] = [str(space) for space in spec.observations]
    kept["observation sizes"] = list(spec.observation_sizes)
    kept["action counts"] = list(spec.action_counts)
    if spec.actions:
        kept["actions"] = [str(space) for space in spec.actions]
    return kept


def check_fits(team: dict[str, list[Any]], spec: Any, name: str) -> None:
    """UsageError unless a team of these ``sizes`` can act where ``spec`` holds."""
    own = sizes(spec)
    for word in sorted({*own, *team}, key=["observations", *own, *team].index):
        a, b = team.get(word, []), own.get(word, [])
        if word == "observations" and tuple(a) != tuple(b):
            sees, shows = (", ".join(dict.fromkeys(x)) or "vectors" for x in (a, b))
            raise UsageError(f"the team observes {sees}, but {name} shows {shows}")
        if tuple(a) != tuple(b):
            raise UsageError(f"the team has {word} {list(a)}, but {name} has {list(b)}")


def open_environment(
    environment: Opened | None,
    options: dict[str, Any],
    python_env: PythonEnvSettings | None = None,
    state: bool = False,
    combined: bool = True,
    arrays: bool = True,
) -> tuple[Environment | PythonEnvFactory, str]:
    """An environment and the name it is recorded under.

    ``family/variant`` and ``package:NAME`` are JAX environments; ``package.module:callable`` is
    imported and called.

    Args:
        options: of the JAX environment; of others, keywords for what makes them.
        python_env: the settings of Python environments, if it is one.
        state: whether the state of a Python environment is wanted, which costs time at every step.
        combined: whether several choices of an agent of it are one numbered action.
        arrays: whether images keep their shapes; else observations are vectors, as in version 0.1.
    """
    keep_compiled_programs()
    name = recorded_name(environment)
    if isinstance(environment, ModuleType):
        environment = name
    if isinstance(environment, str) and not is_code(environment):
        return jax_envs.make(environment, **options), name
    if python_env and python_env.python and not _is_opened(environment):
        _check_importable(environment, name)
        elsewhere = open_in_other_python(name, options, python_env, state, combined, arrays)
        return elsewhere, name
    if isinstance(environment, str):
        make = find_factory(environment, options, python_env)
        if is_python_env(environment):
            return open_python_env(name, make, python_env, state, None, combined, arrays), name
    elif is_made(environment) and options:
        raise UsageError(f"{name} is made already: give {', '.join(options)} to what makes it")
    elif _is_opened(environment):
        return environment, name
    elif is_python_environment(environment):
        make = copies_of(environment)
    elif callable(environment):
        make = with_options(name, environment, options)
    else:
        raise UsageError(reason(environment) or f"{environment!r:.60} is no environment")
    made = make_one(name, make, python_env)
    if isinstance(made, Environment):
        return made, name
    try:
        return open_python_env(name, make, python_env, state, made, combined, arrays), name
    except UsageError as error:
        prefix = "" if isinstance(environment, str) or is_made(environment) else f"{name}: "
        raise UsageError(f"{prefix}{error}") from error


def is_made(environment: Opened) -> bool:
    """Whether it is an environment, and no name or callable that makes one."""
    return _is_opened(environment) or is_python_environment(environment)


def _is_opened(environment: Opened) -> TypeGuard[Environment | PythonEnvFactory]:
    return isinstance(environment, Environment | PythonEnvFactory)


def _check_importable(environment: Opened, name: str) -> None:
    """UsageError unless another Python finds under this name what was given here."""
    if isinstance(environment, str):
        return
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not environment or module == "__main__":
        raise UsageError(
            "another Python (--python) imports an environment by its name, and the "
            f"{type(environment).__name__} that was given has none: write a function that makes it "
            "in a module, and give module:function"
        )


def options_again(environment: Opened, config: dict[str, Any]) -> dict[str, Any]:
    """The options of a run, where what makes its environment is given again; else none."""
    own = config.get("environment", "")
    same = is_code(own) and not is_made(environment) and recorded_name(environment) == own
    return config["environment_options"] if same else {}


def recorded_name(environment: Opened) -> str:
    """The name that a run records of its environment."""
    if isinstance(environment, str):
        return environment
    if isinstance(environment, ModuleType):
        return f"pettingzoo:{environment.__name__}"
    if isinstance(environment, PythonEnvFactory):
        return environment.name
    named = hasattr(environment, "__qualname__") and not is_made(environment)
    own = environment if named else type(environment)
    return f"{own.__module__}:{own.__qualname__}"


def make_game(
    algorithm: Algorithm,
    environment: Environment | PythonEnvFactory,
    name: str,
    reward: Reward | None,
    central: Literal["auto", "state", "joint"],
) -> Game:
    """The environment as this algorithm sees it; refuses what does not fit together."""
    spec = environment.spec()
    reward = reward or spec.reward
    if algorithm.common_reward and reward == "individual":
        raise UsageError(
            f"{algorithm.name} needs a common reward, but {name} does not reward all agents "
            "alike: --reward sum or --reward mean makes one team of all of them"
        )
    z: Central = "none"
    if algorithm.central:
        z = ("state" if spec.central_size else "joint") if central == "auto" else central
        if z == "state" and not spec.central_size:
            raise UsageError(f"{name} offers no state for z; use --central joint")
    if spec.actions and not algorithm.action_vectors:
        able = [each for each, kind in algorithms().items() if kind.action_vectors]
        agent = next(i for i, space in enumerate(spec.actions) if not space.is_single_choice)
        raise UsageError(
            f"{algorithm.name} learns about each single action, but agent {spec.agents[agent]} of "
            f"{name} acts by {spec.actions[agent]}: train {', '.join(able[:-1])} or {able[-1]}"
        )
    wrong = _unsuitable(algorithm, spec, z)
    if wrong is not None:
        raise UsageError(wrong)
    game = seen_by(algorithm, environment, z, reward)
    if isinstance(environment, Environment):
        game.trace()
    return game


def _unsuitable(algorithm: Algorithm, spec: EnvSpec, z: Central) -> str | None:
    """A sentence where settings of what is observed are not for this environment."""
    if not isinstance(algorithm, LearnerSettings):
        return None
    preprocessing, space = _preprocessing(algorithm), spec.observation_space
    if wrong := preprocessing.refusal(spec):
        return wrong
    if algorithm.normalise_observations and space and not space.floats and z != "state":
        return (
            "--normalise-observations is for numbers, and agents observe pixels only; leave it out"
        )
    return torsos.refusal(preprocessing.spec(spec).observations, algorithm.torso)


def _preprocessing(settings: LearnerSettings) -> Preprocessing:
    return Preprocessing(settings.grey, settings.resize, settings.frame_stack)


def seen_by(
    algorithm: Algorithm, environment: Environment | PythonEnvFactory, z: Central, reward: Reward
) -> Game:
    """The environment as this algorithm sees it, given what z is and whose rewards are learned."""
    bounds = algorithm.action_bounds if isinstance(algorithm, VectorSettings) else "clip"
    known = isinstance(algorithm, LearnerSettings)
    preprocessing = _preprocessing(algorithm) if known else UNCHANGED
    return Game(environment, z, reward, algorithm.joint_view, bounds, preprocessing)
