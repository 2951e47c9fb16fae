"""What worker processes read runs on Python 3.9, with NumPy and the environment's packages."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "coterie"
ENTRIES = ("entry", "serving", "single")
BEGINNINGS = (*(f"python_envs.workers.{name}" for name in ENTRIES), "python_envs.check.job")
OURS = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}
LATER = {
    "itertools.pairwise", "types.UnionType", "types.NoneType", "types.EllipsisType",
    "inspect.get_annotations", "contextlib.aclosing", "typing.ParamSpec", "typing.TypeGuard",
    "typing.TypeAlias", "typing.Concatenate", "typing.Self", "typing.assert_never", "enum.StrEnum",
    "datetime.UTC", "hashlib.file_digest", "sys.stdlib_module_names", "sys.exception", "tomllib",
    "operator.call", "itertools.batched", "random.binomialvariate", "contextlib.chdir",
    "functools.Placeholder", "typing.override", "typing.Never", "typing.reveal_type",
}  # fmt: skip
"""Names of the standard library since 3.10."""
TYPES = {"int", "str", "float", "bool", "bytes", "list", "tuple", "dict", "set", "type", "object"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules of this package that are imported as a module is."""
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        else:
            continue
        yield from (name.removeprefix("coterie.") for name in names if name.startswith("coterie."))


def closure() -> dict[str, Path]:
    """All that is read of this package where a worker process begins."""
    found, left = {"__init__": SOURCE / "__init__.py"}, list(BEGINNINGS)
    while left:
        module = left.pop()
        if module not in OURS or module in found:
            continue
        found[module] = OURS[module]
        left += imported(ast.parse(OURS[module].read_text()))
        left += [module.rpartition(".")[0]] if "." in module else []
    return found


def evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that are evaluated; annotations are not, in these files."""
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield child
                    yield from evaluated(child)


def is_type(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return is_type(node.left) or is_type(node.right)
    if isinstance(node, ast.Subscript):
        return is_type(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr[:1].isupper() or node.attr in ("ndarray", "bool_", "integer", "floating")
    if isinstance(node, ast.Name):
        name = node.id.lstrip("_")
        return name in TYPES or (name[:1].isupper() and not name.isupper())
    return isinstance(node, ast.Constant) and node.value is None


def too_new(source: str) -> list[str]:
    """What Python 3.9 cannot run, each by its line."""
    tree = ast.parse(source, feature_version=(3, 9))
    future = "from __future__ import annotations" in source
    found = [] if future or "def " not in source else ["annotations are evaluated"]
    for node in evaluated(tree):
        new = False
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            new = is_type(node)
        elif isinstance(node, ast.Call):
            call, given = ast.unparse(node.func), {word.arg for word in node.keywords}
            new = (call == "zip" and "strict" in given) or bool({"slots", "kw_only"} & given)
            new |= call.endswith("format_exception") and len(node.args) == 1
            new |= call.rpartition(".")[2] in ("anext", "aiter", "bit_count", "add_note")
        elif isinstance(node, ast.Attribute):
            new = ast.unparse(node) in LATER
        elif isinstance(node, ast.ImportFrom):
            new = any(f"{node.module}.{name.name}" in LATER for name in node.names)
        elif isinstance(node, ast.Import):
            new = any(name.name in LATER for name in node.names)
        if new:
            found.append(f"line {getattr(node, 'lineno', 0)}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("module", sorted(closure()))
def test_python_3_9_can_read_it(module):
    assert too_new(closure()[module].read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(x, int | None)", "A = dict[str, Any] | None", "A = np.ndarray | Table[str]",
        "zip(a, b, strict=True)", "dataclass(frozen=True, slots=True)", "itertools.pairwise(x)",
        "from itertools import pairwise", "from typing import TypeGuard", "import tomllib",
        "traceback.format_exception(error)", "def f(x: int | None): ...",
    ],
)  # fmt: skip
def test_what_3_9_cannot_run_is_found(line):
    assert too_new(line)


@pytest.mark.parametrize(
    "source", ["match x:\n  case 1: ...", "try: ...\nexcept* ValueError: ...", "type A = int"]
)
def test_what_3_9_cannot_parse_is_found(source):
    with pytest.raises(SyntaxError):
        too_new(source)


@pytest.mark.parametrize("line", ["a | b", "flags |= 1", "{**a} | {'b': 1}", "zip(a, b)"])
def test_what_3_9_can_run_is_not_found(line):
    assert too_new(line) == []


def test_a_worker_reads_what_the_closure_says_and_no_other_package_than_numpy():
    """In a process in which every other one is missing, as in another Python."""
    code = f"""
import importlib, sys
import numpy
class Missing:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first not in sys.stdlib_module_names and first not in ("coterie", "numpy"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
for name in {BEGINNINGS!r}:
    importlib.import_module("coterie." + name)
print(*sorted(name for name in sys.modules if name.startswith("coterie.")))
"""
    path = str(SOURCE.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    read = {name.removeprefix("coterie.") for name in done.stdout.split()}
    assert read == {*closure()} - {"__init__"}
