"""What is executed, in files: the actors of every seed as plain arrays, and what describes them."""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from coterie.errors import UsageError
from coterie.learners.contract import Algorithm
from coterie.learners.parts import LearnerSettings
from coterie.networks.layers import ACTIVATIONS
from coterie.networks.observation_statistics import ObservationStatistics
from coterie.networks.own import OwnNetwork
from coterie.networks.per_agent import PerAgent
from coterie.networks.torsos import TorsoName, observed, refusal
from coterie.ops.action_vectors import ActionVectors
from coterie.python_envs.adapters.agent_spaces import AgentSpaces
from coterie.python_envs.adapters.space_data import NotData
from coterie.runs.user_code import NOTHING, Given, code_again, of_the_run
from coterie.settings import fitted, hints
from coterie.spec import ActionSpace, EnvSpec, ObservationSpace, PythonEnvFactory
from coterie.storage.files import make_directory, read_sealed
from coterie.storage.tree_files import CheckpointError, read_arrays, read_tree, write_tree
from coterie.types import PyTree
from coterie.views.game import Game
from coterie.views.joint_actions import JointView
from coterie.views.preprocessing import UNCHANGED, Preprocessing

FORMAT = "coterie-policy"
WHICH = ("best", "last")
LISTS = {
    "agents": str, "observation_sizes": int, "action_counts": int, "network_of_agent": int,
    "hidden": int,
}  # fmt: skip
WORDS = {"recurrent": bool, "activation": str, "joint": bool, "stochastic": bool, "run": str}
"""What must stand in ``policy.json``: lists and single values, of which kind."""
_GREATEST, _DEEPEST = 2**24, 1000
"""A size, and a number of layers, beyond what is meant."""


def describe(policy: PerAgent, game: Game, algorithm: Algorithm) -> dict[str, Any]:
    """All that is needed beside the arrays to act with them (``policy/policy.json``)."""
    spec = game.players
    described = (
        {
            "format": FORMAT,
            "version": 1,
            "algorithm": algorithm.name,
            "agents": list(spec.agents),
            "observation_sizes": list(spec.observation_sizes),
            "action_counts": list(spec.action_counts),
            "network_of_agent": list(policy.index),
            "hidden": list(policy.hidden),
            "recurrent": policy.hidden_size > 0,
            "activation": policy.activation,
            "joint": game.joint,
            "stochastic": algorithm.stochastic,
        }
        | _described(policy, spec)
        | _preprocessed(game.preprocessing)
    )
    spaces = game.env.spaces if isinstance(game.env, PythonEnvFactory) else None
    return described | ({} if spaces is None else _readable(described, spaces))


def _readable(described: dict[str, Any], spaces: dict[str, Any]) -> dict[str, Any]:
    """The environment's spaces, where they can be read back; without them a team takes vectors."""
    try:
        AgentSpaces.of_data(spaces, environment_of(described))
    except NotData:
        return {}
    return {"spaces": spaces}


def spaces_of(run: Path, d: dict[str, Any]) -> AgentSpaces | None:
    """The spaces of a policy's environment; None if that was compiled, or not described.

    Raises:
        UsageError: they do not fit the rest; or Gymnasium, whose spaces they are, is missing.
    """
    if "spaces" not in d:
        return None
    try:
        return AgentSpaces.of_data(d["spaces"], environment_of(d))
    except NotData as wrong:
        about = run / "policy" / "policy.json"
        raise UsageError(f"{about} is damaged: of its agents' spaces, {wrong}") from wrong


def _described(policy: PerAgent, spec: EnvSpec) -> dict[str, Any]:
    """What is said besides where observations are no vectors, or actions are."""
    seen: dict[str, Any] = {"layer_norm": True} if policy.layer_norm else {}
    if policy.statistics is not None:
        seen["normalise_observations"] = True
    if spec.observations and policy.networks.torso is not None:
        seen["observation_spaces"] = [
            {
                "shapes": [list(shape) for shape in space.shapes],
                "dtypes": list(space.dtypes),
                "names": list(space.names),
            }
            for space in spec.observations
        ]
    if policy.networks.torso is not None:
        seen["torso"] = policy.networks.torso.name
    if policy.head is not None:
        seen["head"] = policy.head.name
    if policy.vectors is None:
        return seen
    return (
        seen
        | {
            "action_spaces": [
                {"choices": list(space.choices), "low": _told(space.low), "high": _told(space.high)}
                for space in spec.actions
            ],
            "action_bounds": policy.vectors.bounds,
            "least_std": policy.vectors.least_std,
        }
        | ({"std_of_observation": True} if policy.vectors.std_of_observation else {})
    )


def _preprocessed(done: Preprocessing) -> dict[str, Any]:
    """What is said of preprocessing, where there is any."""
    if done == UNCHANGED:
        return {}
    return {"preprocessing": dataclasses.asdict(done)}


def preprocessing_of(d: dict[str, Any]) -> Preprocessing:
    """The inverse of ``_preprocessed``."""
    given = d.get("preprocessing", {})
    resize = given.get("resize")
    return Preprocessing(**given | {"resize": None if resize is None else tuple(resize)})


def _told(bounds: tuple[float, ...]) -> list[float | None]:
    """Bounds in JSON, which has no infinity: null where there is none."""
    return [x if math.isfinite(x) else None for x in bounds]


def _spaces(d: dict[str, Any]) -> tuple[ActionSpace, ...]:
    """The inverse of ``_described``; empty where actions are single choices."""

    def heard(bounds: list[float | None], absent: float) -> tuple[float, ...]:
        return tuple(absent if x is None else x for x in bounds)

    return tuple(
        ActionSpace(tuple(s["choices"]), heard(s["low"], -math.inf), heard(s["high"], math.inf))
        for s in d.get("action_spaces", [])
    )


def _seen(d: dict[str, Any]) -> tuple[ObservationSpace, ...]:
    """The agents' observation spaces; empty where observations are vectors."""
    return tuple(
        ObservationSpace(tuple(map(tuple, s["shapes"])), tuple(s["dtypes"]), tuple(s["names"]))
        for s in d.get("observation_spaces", [])
    )


def environment_of(d: dict[str, Any]) -> EnvSpec:
    """What a policy's agents see and do, from its description."""
    spaces = _spaces(d)
    return EnvSpec(
        tuple(d["agents"]),
        tuple(d["observation_sizes"]),
        () if spaces else tuple(d["action_counts"]),
        actions=spaces,
        observations=_seen(d),
    )


def save_policies(path: Path, which: str, policies: PyTree, run: str, steps: Sequence[int]) -> None:
    """Writes the policies of all seeds [S, ...] to ``policy/seed-<k>/<which>.safetensors``.

    Args:
        path: the run directory.
        run: names the run, so that a file of another one is not taken for its own.
        steps: [S] environment steps that each was trained for.
    """
    arrays = jax.tree.map(np.asarray, policies)
    for k in range(jax.tree.leaves(arrays)[0].shape[0]):
        folder = path / "policy" / f"seed-{k}"
        make_directory(folder, path)
        one = jax.tree.map(lambda x, k=k: x[k], arrays)
        label = _label(which, k, run) | {"env_steps": steps[k]}
        write_tree(folder / f"{which}.safetensors", one, label)


def _label(which: str, seed: int, run: str) -> dict[str, Any]:
    return {"format": FORMAT, "run": run, "seed": seed, "which": which}


def load_policy(
    run: Path, seed: int, which: str, given: Given = NOTHING
) -> tuple[PerAgent, dict[str, Any]]:
    """The policy of one seed and its description; ``env_steps`` is None in older files.

    Args:
        given: networks of the user's, where the policy has some; others are known from the file.

    Raises:
        UsageError: no run there, no such seed, no such policy; another network is needed.
        CheckpointError: the file is damaged.
    """
    if which not in WHICH:
        raise UsageError(f"which must be one of {', '.join(WHICH)}; got {which!r}")
    d = _description(run)
    path = _file_of(run, seed, which)
    names = {"torso": d.get("torso", "auto"), "head": d.get("head", "linear")}
    own = code_again(names, given)
    template = eqx.filter_eval_shape(_blank, d, names | own)
    with of_the_run({word: names[word] for word in own}):
        policy, label = read_tree(path, template)
    return policy, d | {"env_steps": _checked_steps(path, label, seed, which, d["run"])}


def _file_of(run: Path, seed: int, which: str) -> Path:
    path = run / "policy" / f"seed-{seed}" / f"{which}.safetensors"
    if not os.path.lexists(path):
        names = [p.name[5:] for p in (run / "policy").glob("seed-*")]
        have = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
        raise UsageError(f"{run} has no {which} policy of seed {seed}; it has seeds {have}")
    return path


def _blank(d: dict[str, Any], networks: Given) -> PerAgent:
    """A policy as it is described, with parameters of no meaning."""
    spec = preprocessing_of(d).spec(environment_of(d))
    spec = JointView(spec).spec if d["joint"] else spec
    vectors = None
    if spec.actions:
        varying = d.get("std_of_observation", False)
        vectors = ActionVectors(spec.actions, d["action_bounds"], d["least_std"], varying)
    statistics = None
    if d.get("normalise_observations", False):
        statistics = ObservationStatistics.empty(spec, d["network_of_agent"])
    return PerAgent(
        tuple(d["network_of_agent"]),
        spec.observation_size,
        spec.action_count if vectors is None else vectors.network_outputs,
        tuple(d["hidden"]),
        jax.random.key(0),
        d["recurrent"],
        d["activation"],
        vectors=vectors,
        space=observed(spec, networks["torso"]),
        torso=networks["torso"],
        head=networks["head"],
        layer_norm=d.get("layer_norm", False),
        statistics=statistics,
    )


def _checked_steps(
    path: Path, label: dict[str, Any], seed: int, which: str, run: str
) -> int | None:
    """Environment steps that a file says its policy was trained for."""
    if label | _label(which, seed, run) != label:
        raise CheckpointError(f"{path} is not the {which} policy of seed {seed} of this run")
    steps = label.get("env_steps")
    if steps is not None and (type(steps) is not int or steps < 0):
        raise CheckpointError(f"{path} is damaged: env_steps is no number of steps")
    return steps


def _description(run: Path) -> dict[str, Any]:
    """``policy.json``, checked."""
    about = run / "policy" / "policy.json"
    if not os.path.lexists(about):
        why = "is it a run directory that finished a step?"
        why = why if run.is_dir() else "there is no such directory"
        raise UsageError(f"{run} holds no policy: {why}")
    d = read_sealed(about)
    known = d.get("default", "best") in WHICH
    if d.get("format") != FORMAT or not d.keys() >= {*LISTS, *WORDS} or not known:
        raise UsageError(f"{about} is not a Coterie policy")
    kinds = all(type(d[name]) is kind for name, kind in WORDS.items()) and all(
        isinstance(d[name], list) and all(type(x) is kind for x in d[name])
        for name, kind in LISTS.items()
    )
    if not kinds or not _fits_together(d) or not _spaces_fit(d):
        raise UsageError(f"{about} is damaged: its agents and networks do not fit together")
    return d


def _fits_together(d: dict[str, Any]) -> bool:
    sizes = (*d["observation_sizes"], *d["action_counts"], *d["hidden"])
    networks = d["network_of_agent"]
    return (
        all(0 < n < _GREATEST for n in sizes)
        and d["activation"] in ACTIVATIONS
        and all(
            type(d.get(word, False)) is bool for word in ("layer_norm", "normalise_observations")
        )
        and 0 < len(d["hidden"]) <= _DEEPEST
        and len(networks) == (1 if d["joint"] else len(d["agents"]))
        and sorted(set(networks)) == list(range(len(set(networks))))
    )


def _spaces_fit(d: dict[str, Any]) -> bool:
    return _vectors_fit(d) and _preprocessing_fits(d) and _arrays_fit(d)


def _preprocessing_fits(d: dict[str, Any]) -> bool:
    """Whether what is said of preprocessing, if anything is, makes sense."""
    given = d.get("preprocessing", {})
    if not isinstance(given, dict) or given.keys() - {"grey", "resize", "frame_stack"}:
        return False
    declared = hints(LearnerSettings)
    try:
        for name, value in given.items():
            fitted(name, value, declared[name])
        return preprocessing_of(d).refusal(environment_of(d)) is None
    except (UsageError, TypeError, KeyError, AttributeError, ValueError, IndexError):
        return False


def _vectors_fit(d: dict[str, Any]) -> bool:
    """Whether what is said of action vectors, if anything is, makes sense."""
    if "action_spaces" not in d:
        return True
    try:
        spaces = _spaces(d)
        sizes = [x for space in spaces for x in (space.flags, space.size)]
        numbers = [x for space in spaces for x in (*space.low, *space.high)]
        counts = [x for space in d["action_spaces"] for x in space["choices"]]
        least = float(d["least_std"])
    except (UsageError, TypeError, KeyError, AttributeError, ValueError, OverflowError):
        return False
    return (
        len(spaces) == len(d["agents"])
        and all(0 < x < _GREATEST for x in sizes)
        and not any(math.isnan(x) for x in numbers)
        and d["action_counts"] in ([space.flags for space in spaces], _former_counts(spaces))
        and not all(space.is_single_choice for space in spaces)
        and d.get("action_bounds") in ("clip", "tanh")
        and all(type(x) is int for x in counts)
        and type(d["least_std"]) in (int, float)
        and type(d.get("std_of_observation", False)) is bool
        and 0 <= least < math.inf
    )


def _arrays_fit(d: dict[str, Any]) -> bool:
    """Whether what is said of observation spaces, torso and head, if anything is, makes sense."""
    if "head" in d and not _is_path(d["head"]):
        return False
    if "observation_spaces" not in d:
        return "torso" not in d or _is_path(d["torso"])
    try:
        spaces = _seen(d)
        shapes = [shape for s in d["observation_spaces"] for shape in s["shapes"]]
        seen = preprocessing_of(d).spec(environment_of(d)).observations
        asked = refusal(seen, d["torso"])
    except (UsageError, TypeError, KeyError, AttributeError, ValueError, IndexError):
        return False
    return (
        len(spaces) == len(d["agents"])
        and len(set(spaces)) == 1
        and [space.size for space in spaces] == d["observation_sizes"]
        and all(type(size) is int for shape in shapes for size in shape)
        and all(type(name) is str for space in spaces for name in space.names)
        and len(shapes) < _DEEPEST
        and (d["torso"] in typing.get_args(TorsoName) or _is_path(d["torso"]))
        and asked is None
    )


def _is_path(torso: Any) -> bool:
    return isinstance(torso, str) and OwnNetwork.read(torso) is not None


def _former_counts(spaces: tuple[ActionSpace, ...]) -> list[int]:
    """``action_counts`` of files from when masks had no flags for numbers."""
    return [max(sum(space.choices), 1) for space in spaces]


def saved_steps(run: Path, which: str, seeds: int) -> list[int | None]:
    """[S] the environment steps that each seed's saved policy was trained for."""
    name, found = _description(run)["run"], []
    for k in range(seeds):
        path = _file_of(run, k, which)
        _, label = read_arrays(path)
        found.append(_checked_steps(path, label, k, which, name))
    return found


def default_policy(run: Path) -> str:
    """Which policies of a run directory are played unless asked otherwise."""
    return _description(run).get("default", "best")
