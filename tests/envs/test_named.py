"""What goes wrong in somebody's module or factory is told with its file and line."""

import re
import textwrap

import pytest

import coterie
from coterie.cli.entry import main

FAULTS = {
    "a type": (
        'def make():\n    return inner("3")\ndef inner(n):\n    return n + 1',
        4,
        "TypeError",
    ),
    "an argument": ("def make():\n    return inner()\ndef inner(n): ...", 2, "TypeError"),
    "a value": ("def make():\n    return int('x')", 2, "ValueError"),
    "no attribute": ("def make():\n    import json\n    return json.nothing", 3, "AttributeError"),
    "a name that a module lacks": ("def make():\n    from json import nothing", 2, "ImportError"),
    "its class": ("class make:\n    def __init__(self):\n        self.x = 1 + ''", 3, "TypeError"),
    "its module": ("\n\nx = undefined", 3, "NameError"),
    "its module's types": ("\nx = 1 + ''", 2, "TypeError"),
    "its syntax": ("\ndef f(:", 2, "SyntaxError"),
    "an import of its module": ("\nfrom json import nothing", 2, "cannot import name"),
}
"""Source, the line at fault, and a word of the sentence."""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """``written(source)``: the name of a module of this source."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        name = f"mine_{abs(hash(source))}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source) + "\n")
        return name

    return write


@pytest.mark.parametrize("command", ["check", "train ippo"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_factory_names_file_and_line(fault, command, written, capfd, tmp_path):
    source, line, word = FAULTS[fault]
    module = written(source)
    out = ["--out", str(tmp_path / "run")] if command != "check" else []
    assert main([*command.split(), f"{module}:make", *out]) in (1, 2)
    said = " ".join("".join(capfd.readouterr()).split())
    assert word in said
    assert f"({module}.py, line {line})" in said
    assert "Traceback" not in said


def test_a_factory_that_takes_something_is_a_mistake_of_its_caller(written):
    name = f"{written('def make(size): ...')}:make"
    sentence = re.escape(f"{name} cannot make an environment: make() missing 1 required")
    for opened in (coterie.check_env, lambda name: coterie.train(coterie.IPPO(), name, 10)):
        with pytest.raises(coterie.UsageError, match=sentence):
            opened(name)
