"""Damage at random: whatever is flipped, cut, swapped or changed by hand is noticed and named."""

import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import coterie
from coterie.errors import UsageError
from coterie.runs.api import _misplaced, open_run
from coterie.runs.environments import sizes
from coterie.runs.policy_files import describe, load_policy, save_policies
from coterie.storage.checkpoint import latest, save
from coterie.storage.config_file import identity
from coterie.storage.files import seal
from coterie.storage.run_directory import RunDirectory
from coterie.storage.tree_files import CheckpointError, read_arrays, read_tree, write_tree
from coterie.training.loop import Program
from coterie.views.game import Game

STEPS = (40, 80)
MISTAKEN = r"is not the (best|last) policy of seed . of this run"


def config(seed: int) -> dict[str, Any]:
    algorithm = coterie.IA2C(hidden=(6,), environments=2, rollout_steps=2)
    return {
        "format": 2, "coterie": "0.1.0", "command": None,
        "algorithm": "ia2c", "settings": algorithm.settings(),
        "environment": "matrix/climbing", "environment_options": {}, "reward": "individual",
        "central": "none", "steps": 100, "seeds": 2, "seed": seed, "evaluations": 2,
        "final_episodes": 0, "sizes": sizes(coterie.make("matrix/climbing").spec()), "lanes": 1,
        "versions": {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Program:
    game = Game(coterie.make("matrix/climbing"))
    return Program(coterie.IA2C(hidden=(6,), environments=2, rollout_steps=2), game, 2)


def made(path: Path, seed: int, program: Program) -> Path:
    """A run directory with random numbers in it: training would only take time."""
    settings, directory = config(seed), RunDirectory.create(path)
    directory.write_config(settings)
    rng = np.random.default_rng(seed)
    template = program.template()

    def draw(x):
        return jax.random.split(jax.random.key(seed), x.shape) if _is_key(x) else (
            rng.integers(0, 2, x.shape).astype(x.dtype)
        )  # fmt: skip

    directory.log([{"seed": seed, "env_steps": 80}])
    size, digest = directory.sync_log()
    for step in STEPS:
        meta = {"run": identity(settings), "iteration": step // 4, "env_steps": step,
                "seconds": 1.0, "log_bytes": size, "log_digest": digest, "log_lines": 1,
                "evaluations": {}}  # fmt: skip
        state = jax.tree.map(draw, template)
        save(path, step, state, meta)
    policy = program.algorithm.policy(state.learner)
    about = describe(policy, program.game, program.algorithm) | {"run": identity(settings)}
    directory.write_json("policy/policy.json", seal(about))
    for which in ("best", "last"):
        save_policies(path, which, policy, identity(settings), [80, 80])
    return path


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, program) -> tuple[Path, Path]:
    """Two runs that differ in nothing but their seed."""
    home = tmp_path_factory.mktemp("runs")
    return made(home / "one", 0, program), made(home / "other", 5, program)


def newest(run: Path) -> Path:
    return run / "checkpoints" / str(STEPS[-1]) / "state.safetensors"


def test_no_flipped_bit_passes(runs, tmp_path):
    good = newest(runs[0]).read_bytes()
    chance, path = random.Random(1), tmp_path / "state.safetensors"
    for _ in range(1000):
        bad = bytearray(good)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match=r"safetensors is (damaged|no check)"):
            read_arrays(path)


def test_no_truncation_passes(runs, tmp_path):
    good = newest(runs[0]).read_bytes()
    chance, path = random.Random(2), tmp_path / "state.safetensors"
    for _ in range(200):
        path.write_bytes(good[: chance.randrange(len(good))])
        with pytest.raises(CheckpointError, match="is damaged"):
            read_arrays(path)


FILES = [f"policy/seed-{k}/{which}.safetensors" for k in (0, 1) for which in ("best", "last")]
WITHIN = list(itertools.combinations(FILES, 2))


def read_policies(run: Path) -> None:
    for k in (0, 1):
        for which in ("best", "last"):
            load_policy(run, k, which)


@pytest.mark.parametrize(("one", "other"), WITHIN)
def test_no_swapped_policy_passes(runs, tmp_path, one, other):
    run = shutil.copytree(runs[0], tmp_path / "run")
    read_policies(run)
    shutil.copy(runs[0] / one, run / other)
    shutil.copy(runs[0] / other, run / one)
    with pytest.raises(CheckpointError, match=MISTAKEN):
        read_policies(run)


@pytest.mark.parametrize("name", [*FILES, "policy/policy.json"])
def test_no_policy_of_another_run_passes(runs, tmp_path, name):
    run = shutil.copytree(runs[0], tmp_path / "run")
    shutil.copy(runs[1] / name, run / name)
    with pytest.raises(CheckpointError, match=MISTAKEN):
        read_policies(run)


def found(run: Path, program: Program, seed: int = 0):
    """What a resume would go on from, and what it would warn of."""
    warnings: list[str] = []
    name = identity(config(seed))
    restored = latest(
        run, program.template(), warnings.append, lambda s, m: _misplaced(s, m, program, name)
    )
    return restored.step, warnings


@pytest.mark.parametrize("step", STEPS)
def test_no_checkpoint_of_another_run_passes(runs, program, tmp_path, step):
    run = shutil.copytree(runs[0], tmp_path / "run")
    assert found(run, program) == (80, [])
    path = run / "checkpoints" / str(step) / "state.safetensors"
    shutil.copy(runs[1] / path.relative_to(run), path)
    if step == 80:
        assert found(run, program) == (
            40, [f"{path} is of another run; trying the checkpoint before it"],
        )  # fmt: skip
    else:
        newest(run).unlink()
        with pytest.raises(CheckpointError, match=r"40/state\.safetensors is of another run"):
            found(run, program)


def test_no_checkpoint_of_another_step_passes(runs, program, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "run")
    old = run / "checkpoints/40/state.safetensors"
    shutil.copy(old, newest(run))
    step, (warning,) = found(run, program)
    assert step == 40
    assert "is that of iteration 10, and not of step 80" in warning
    shutil.copy(newest(runs[0]), old)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is good"):
        found(run, program)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"iteration": "20"}, "iteration"),
        ({"log_bytes": None}, "log_bytes"),
        ({"seconds": 1}, "seconds"),
        ({"log_digest": 3}, "log_digest"),
        ({"log_lines": 1.0}, "log_lines"),
        ({"evaluations": []}, "evaluations"),
    ],
)
def test_no_checkpoint_without_its_facts_passes(runs, program, tmp_path, change, word):
    run = shutil.copytree(runs[0], tmp_path / "run")
    tree, meta = read_tree(newest(run), program.template())
    write_tree(newest(run), tree, meta | change)
    step, (warning,) = found(run, program)
    assert step == 40
    assert f"does not say its {word}" in warning


@pytest.mark.parametrize(
    "found", [[1], [0, 1, 2], "01", {"0": 1}, [1, 0], [0, "1"], [True, 2], [0, 10**400]]
)
def test_bounds_of_returns_are_two_numbers(runs, tmp_path, found):
    run = shutil.copytree(runs[0], tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    del config["digest"]
    (run / "config.json").write_text(json.dumps(seal(config | {"return_bounds": found})))
    with pytest.raises(UsageError, match="is not that of a run: return_bounds are not two numbers"):
        open_run(run)


def test_no_damaged_configuration_passes(runs, tmp_path):
    """Bits flipped, pieces cut, digits and words replaced."""
    run = shutil.copytree(runs[0], tmp_path / "run")
    path, chance = run / "config.json", random.Random(3)
    good = path.read_bytes()
    right = json.loads(good)
    refused = 0
    for k in range(400):
        bad, at = bytearray(good), chance.randrange(len(good))
        if k % 4 == 0:
            bad[at] ^= 1 << chance.randrange(8)
        elif k % 4 == 1:
            del bad[at : at + chance.randrange(1, 40)]
        elif k % 4 == 2:
            bad[at] = ord(chance.choice("0123456789"))
        else:
            bad[at:at] = chance.choice([b"1", b"x", b",", b'"a": 1, ', b"[", b"-"])
        try:
            same = json.loads(bytes(bad)) == right
        except ValueError:
            same = False
        if same:
            continue  # white space, or what was there already
        path.write_bytes(bad)
        with pytest.raises(UsageError, match=r"config\.json is (damaged|not that of a run)"):
            open_run(run)
        refused += 1
    assert refused > 200
    path.write_bytes(good)
    open_run(run)
