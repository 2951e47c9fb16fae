"""The wheel without any extra: what it does, and which extra each message names."""

import json
import os
import venv
from importlib import metadata
from pathlib import Path

import pytest
from built_wheel import install, ran, wheel
from packaging.requirements import Requirement
from quick import FLAGS

pytestmark = pytest.mark.slow
TRAIN = "train vdn matrix/climbing --steps 100 --tracker"
COMMANDS = {
    "python-envs": "train ippo gymnasium:CartPole-v1",
    "lbforaging": "check gymnasium:lbforaging:Foraging-5x5-2p-1f-v3",
    "mpe": "check pettingzoo:mpe2.simple_spread_v3",
    "jaxmarl": "train vdn jaxmarl:MPE_simple_spread_v3",
    "jumanji": "train ippo jumanji:Snake-v1",
    "video": "watch run --out x.mp4",
    "tensorboard": f"{TRAIN} tensorboard",
    "wandb": f"{TRAIN} wandb",
    "mlflow": f"{TRAIN} mlflow",
    "export": "export run --format onnx",
}
"""A command that needs an extra, by the extra's name."""
RUN = (
    "train vdn matrix/climbing --steps 32 --evaluations 1 --evaluation-episodes 1 --hidden 4 "
    "--final-episodes 0 --environments 2 --buffer-size 64 --batch-size 4 --learning-starts 8 "
    "--out run"
)


def needed(package: str, found: set[str]) -> set[str]:
    """Distributions that one needs on this system, itself included, without extras."""
    name = metadata.distribution(package).metadata["Name"]
    if name not in found:
        found.add(name)
        for requirement in map(Requirement, metadata.requires(package) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A folder with ``venv``: the wheel, links to what that needs, and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder / "venv")
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    for name in needed("coterie", set()) - {"coterie"}:
        files = metadata.files(name) or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                os.symlink(Path(files[0].locate()).parents[len(files[0].parts) - 1] / top,
                           packages / top)  # fmt: skip
    install(wheel(folder), packages)
    python = folder / "venv" / "bin" / "python"
    quick = ("env", f"XLA_FLAGS={FLAGS}")
    done = ran(*quick, python, "-m", "coterie", *RUN.split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def coterie(folder: Path, line: str):
    return ran(folder / "venv" / "bin" / "python", "-m", "coterie", *line.split(), cwd=folder)


def advice(folder: Path, extra: str) -> str:
    (made,) = folder.glob("*.whl")
    return f"pip install 'coterie[{extra}] @ {made.as_uri()}'"


@pytest.mark.parametrize("extra", COMMANDS)
def test_what_needs_an_extra_names_it(alone, extra):
    done = coterie(alone, COMMANDS[extra])
    assert done.returncode == 2
    assert advice(alone, extra) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_equilibria_name_theirs_and_doctor_names_all(alone):
    code = (
        "import numpy as np; from coterie.games.solution_concepts import mixed_equilibria;"
        "mixed_equilibria(np.ones((2, 2, 2)))"
    )
    done = ran(alone / "venv" / "bin" / "python", "-c", code, cwd=alone)
    assert advice(alone, "analysis") in done.stderr
    done = coterie(alone, "doctor --json")
    assert done.returncode == 0, done.stdout
    checks = json.loads(done.stdout)["checks"]
    extras = {each["name"]: each for each in checks if each["group"] == "extras"}
    assert {*COMMANDS, "analysis", "docs"} <= extras.keys()
    for name, each in extras.items():
        assert (each["state"], each["advice"]) == ("missing", advice(alone, name))
