"""Systems without POSIX, as Windows is one: none of its names is used where it may be missing."""

import ast
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "coterie"
WITHOUT_POSIX = TESTS / "without_posix"
NAMES = runpy.run_path(str(WITHOUT_POSIX / "posix_names.py"))
LACKING = {"os": NAMES["NOT_IN_OS"], "signal": NAMES["POSIX_SIGNALS"]}


def guarded(node: ast.AST) -> bool:
    """Whether a function or module asks if names are there, or goes on where they are not."""
    return any(
        (isinstance(x, ast.Name) and x.id == "hasattr")
        or (isinstance(x, ast.Name) and x.id == "AttributeError")
        or (isinstance(x, ast.Attribute) and ast.unparse(x) == "sys.platform")
        for x in ast.walk(node)
    )


def unguarded(tree: ast.AST) -> Iterator[str]:
    """POSIX names used in a function that does not ask for any, or outside of functions."""
    for node in ast.iter_child_nodes(tree):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        safe = (function or isinstance(node, ast.If)) and guarded(node)
        if safe:
            continue
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in LACKING:
            name = ast.unparse(node.value)
            yield from [f"line {node.lineno}: {name}.{node.attr}"] * (node.attr in LACKING[name])
        if isinstance(node, ast.Import):
            yield from (f"import {n.name}" for n in node.names if n.name in NAMES["NO_MODULES"])
        yield from unguarded(node)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.stem)
def test_names_of_posix_are_used_where_they_are_there(path):
    assert list(unguarded(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = os.open(p, os.O_RDWR | os.O_NOFOLLOW)", ["line 1: os.O_NOFOLLOW"]),
        ("def f():\n  signal.signal(signal.SIGALRM, g)", ["line 2: signal.SIGALRM"]),
        ("def f():\n  if hasattr(os, 'fork'):\n    os.fork()", []),
        ("if hasattr(os, 'fork'):\n  x = os.fork", []),
        ("import fcntl", ["import fcntl"]),
    ],
)
def test_a_name_that_may_be_missing_is_found(source, found):
    assert list(unguarded(ast.parse(source))) == found


def run(*words: str, timeout: float = 280) -> str:
    paths = os.pathsep.join(map(str, (WITHOUT_POSIX, SOURCE.parent, TESTS)))
    done = subprocess.run(
        [sys.executable, *words], env=os.environ | {"PYTHONPATH": paths}, cwd=TESTS.parent,
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_names_are_gone_in_coterie_alone():
    code = (
        "import os, signal\nfrom coterie.storage import files\n"
        "from coterie.python_envs import process\n"
        "print(hasattr(os, 'fork'), hasattr(signal, 'SIGALRM'), hasattr(files.os, 'O_NOFOLLOW'), "
        "hasattr(process.os, 'killpg'), hasattr(process.signal, 'SIGKILL'))"
    )
    assert run("-c", code).split() == ["True", "True", "False", "False", "False"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "which"),
    [
        ("test_files.py test_checkpoint.py test_doctor.py", "not synced"),
        (
            "test_hosted_training.py",
            "change_nothing and ippo or fault_is_named and (Raises or Dies)",
        ),
    ],
)
def test_files_and_workers_do_without(files, which):
    """But for what POSIX alone can do: names of files that survive a power cut, alarms."""
    paths = [f"tests/{name}" for name in files.split()]
    said = run("-m", "pytest", "-m", "", "-k", which, *paths)
    assert said.count(".") > 4
