"""Each layer of the package imports only from those above it in the list of ``docs/design.md``."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "coterie"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
    if path != SOURCE / "__init__.py"  # the face of all of it
}


def layers() -> list[str]:
    """The files and folders in the first column of the table, from the top down."""
    page = (ROOT / "docs" / "design.md").read_text()
    cells = re.findall(r"^\| (`[^|]*) \|", page, re.M)
    return [name for cell in cells for name in re.findall(r"`(\w+)(?:\.py|/)`", cell)]


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere: in functions, and for types alone, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names = [f"{node.module}.{name.name}" for name in node.names]
        else:
            continue
        for name in names:
            module = name.removeprefix("coterie.") if name.startswith("coterie.") else ""
            while module and module not in MODULES:
                module = module.rpartition(".")[0]
            if module:
                yield module


def faults(graph: dict[str, set[str]]) -> list[str]:
    """Imports that lead down or round in a circle, or to a private module of another package."""
    order = layers()

    def layer(module: str) -> int:
        return order.index(module.partition(".")[0])

    def reached(module: str) -> set[str]:
        found, new = set(), {module}
        while new:
            found |= new
            new = set().union(*(graph[each] for each in new)) - found
        return found

    found = []
    for module in sorted(graph):
        for other in sorted(graph[module]):
            private = other.rpartition(".")[2].startswith("_")
            if layer(other) > layer(module) or module in reached(other):
                found.append(f"{module} imports {other}")
            if private and other.rpartition(".")[0] != module.rpartition(".")[0]:
                found.append(f"{module} imports the private {other}")
    return found


GRAPH = {module: set(imports(path)) for module, path in MODULES.items()}


def test_imports_go_up_the_list_only():
    assert set(layers()) == {module.partition(".")[0] for module in MODULES}
    assert faults(GRAPH) == []


@pytest.mark.parametrize(
    ("module", "other"),
    [("views.game", "runs.team"), ("show.numbers", "show.terminal.progress")],
)
def test_an_import_that_leads_down_or_in_a_circle_is_found(module, other):
    graph = GRAPH | {module: GRAPH[module] | {other}}
    assert any(f"{module} imports {other}" in fault for fault in faults(graph))


def test_what_worker_processes_import_leaves_jax_out():
    """Adapters and workers start in the time NumPy and the environment take."""
    allowed = {"errors", "naming", "python_envs", "shapes", "spec", "text"}
    for module in MODULES:
        if module.startswith(("python_envs.adapters", "python_envs.workers")):
            assert {other.partition(".")[0] for other in GRAPH[module]} <= allowed
            source = ast.parse(MODULES[module].read_text())
            names = {n.name for x in ast.walk(source) if isinstance(x, ast.Import) for n in x.names}
            assert "jax" not in names, module
