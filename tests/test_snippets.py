"""Whatever the documentation shows can be done: commands are read, code runs as it is printed."""

import ast
import contextlib
import importlib
import os
import re
import shlex
import shutil
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
from test_own_loop import Cards

import coterie
from coterie.cli.parsing import parse
from coterie.cli.table import COMMANDS, groups_of

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"])

# Commands ----------------------------------------------------------------------------------------

PLACES = {
    "ALGORITHM": "vdn", "ENVIRONMENT": "matrix/climbing", "RUN": "runs/x", "NAME": "climbing",
    "STEPS": "1e5", "DIR": "runs/x", "module:Class": "qtran:QTRAN",
}  # fmt: skip


def commands(page: Path) -> list[str]:
    """The commands of a page, in its blocks and its lines, as one line each."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```$", text, re.M | re.S)
    found = [line for b in blocks for line in b.replace("\\\n", " ").splitlines()]
    found += [" ".join(c.split()) for c in re.findall(r"`(coterie [^`]+)`", text)]
    parts = (part for line in found for part in line.split("&&"))
    return [c for part in parts if (c := re.sub(r"^\s*(\.venv/bin/)?", "", part))[:8] == "coterie "]


def whole(command: str) -> bool:
    """Whether it is more than the name of a command, or of a flag of it."""
    words = command.split()
    return words[1] in COMMANDS and "..." not in words and not re.search(r" --[\w-]+$", command)


SHOWN = [(page.name, c) for page in PAGES for c in commands(page) if whole(c)]


def test_there_are_commands_to_be_read():
    assert len(SHOWN) > 40
    assert {command.split()[1] for _, command in SHOWN} >= {*COMMANDS} - {"completion"}


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{p}: {c}"[:70] for p, c in SHOWN])
def test_commands_are_read(page, command, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    line = re.sub(r"\[|\]|\bK\b", lambda m: "50" if m[0] == "K" else "", command)
    for place, name in PLACES.items():
        line = re.sub(rf"\b{place}\b", name, line)
    _, name, *rest = shlex.split(line, comments=True)
    names = rest[: next((k for k, word in enumerate(rest) if word.startswith("-")), len(rest))]
    if not names and COMMANDS[name].names[0]:
        pytest.skip("the name of a command alone")
    if "--help" not in rest:
        assert COMMANDS[name].names[0] <= len(names) <= COMMANDS[name].names[1]
        parse(groups_of(COMMANDS[name], names, rest), rest[len(names) :], "coterie")


# Python ------------------------------------------------------------------------------------------

TINY = {"steps": 500, "seeds": 2, "evaluations": 1, "final_episodes": 4}


def blocks(page: str) -> list[str]:
    text = (ROOT / page).read_text()
    return [
        textwrap.dedent(b) for b in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.M | re.S)
    ]


def tiny(algorithm, environment, *_, **given):
    """``coterie.train``, over in a second."""
    seeds = min(given.get("seeds", 1), 2)
    return coterie.runs.api.train(algorithm, environment, **(given | TINY | {"seeds": seeds}))


def no(*_):
    return None


def of_a_game(space):
    space |= {"np": np, "policies": [np.array([1.0, 0.0])] * 2}


def of_speakers(space):
    space["run"] = tiny("mappo", "mpe/simple-speaker-listener")


def of_several_runs(space):
    space |= {name: tiny(name, "matrix/climbing", seeds=2) for name in ("vdn", "qmix")}
    space |= {"a": np.arange(3.0), "b": np.arange(3.0) + 1, "thresholds": np.linspace(0, 1, 3)}
    space |= {"samples": np.arange(6.0).reshape(3, 2)}


def of_a_checkpoint(space):
    tiny("vdn", "matrix/climbing", out="run")
    *_, state = sorted(Path("run/checkpoints").glob("*/state.safetensors"))
    space["path"] = state
    shutil.copytree("run/policy", "policy")
    Path("checkpoints/1000000").mkdir(parents=True)
    shutil.copy(state, "checkpoints/1000000/state.safetensors")


def of_a_doorway(space):
    space["make_environment"] = __import__("pettingzoo_doorway").Doorway


def of_a_loop(space):
    doorway = __import__("pettingzoo_doorway").Doorway
    tiny("ippo", doorway, out="runs/spread")
    space["env"] = doorway()


def of_turns(space):
    tiny("idqn", Cards, out="runs/cards")
    space |= {"team": coterie.load("runs/cards"), "env": Cards()}


def of_an_export(space):
    tiny("vdn", "matrix/climbing", out="runs/vdn")
    sys.path.insert(0, os.getcwd())  # the test restores it


OF_SETTINGS = "from typing import Annotated; from coterie.settings import Range"

# What the text around a block takes for granted, by page and number of the block.
PREPARE = {
    ("docs/add-an-algorithm.md", 1): lambda space: exec(OF_SETTINGS, space),
    ("README.md", 0): lambda space: space.update(observations=[np.zeros(9)] * 2),
    ("docs/analysis.md", 0): of_a_game,
    ("docs/analysis.md", 4): of_speakers,
    ("docs/analysis.md", 5): of_several_runs,
    ("docs/environments-matrix.md", 0): lambda s: s.update(payoffs=np.zeros((2, 3, 2))),
    ("docs/export.md", 0): of_an_export,
    ("docs/first-team.md", 0): lambda _: tiny("vdn", "matrix/climbing", out="runs/vdn"),
    ("docs/formats.md", 0): of_a_checkpoint,
    ("docs/reports.md", 0): lambda _: tiny("vdn", "matrix/climbing", out="runs/vdn-lbf"),
    ("docs/your-environment.md", 0): of_a_doorway,
    ("docs/your-environment.md", 1): of_a_loop,
    ("docs/your-environment.md", 3): of_turns,
}
QUICK = (
    "docs/environments-matrix.md",
    "docs/presets.md",
    "docs/promises.md",
    "docs/add-an-environment.md",
)
PYTHON = [str(p.relative_to(ROOT)) for p in PAGES if blocks(str(p.relative_to(ROOT)))]


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=() if p in QUICK else pytest.mark.slow) for p in PYTHON],
)
def test_code_runs_as_it_is_printed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT / "examples")]))
    monkeypatch.setattr(coterie, "train", tiny, raising=False)
    module = types.ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)
    (space := vars(module))["coterie"] = coterie
    for number, code in enumerate(blocks(page)):
        PREPARE.get((page, number), no)(space)
        with contextlib.redirect_stdout(None):
            exec(compile(code, f"{page}, block {number}", "exec", dont_inherit=True), space)


# Benchmarks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.name)
def test_benchmarks_use_names_that_there_are(path):
    """They run by hand only, and long: here every name of Coterie's that they use is looked up."""
    tree, modules = ast.parse(path.read_text()), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coterie"):
            for alias in node.names:
                try:
                    found = importlib.import_module(f"{node.module}.{alias.name}")
                    modules[alias.asname or alias.name] = found
                except ModuleNotFoundError:
                    assert hasattr(importlib.import_module(node.module), alias.name), alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), f"{node.value.id}.{node.attr}"
