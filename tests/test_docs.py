"""What the documentation shows is what the code is."""

import ast
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation

import coterie
from coterie.algorithms import algorithms

ROOT = Path(__file__).parent.parent
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(name: str) -> list[str]:
    text = (ROOT / "docs" / name).read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("add-an-environment.md", "examples/two_doors.py"),
        ("add-an-algorithm.md", "src/coterie/algorithms/vdn.py"),
    ],
)
def test_whole_files_are_shown_as_they_are(page, file):
    assert (ROOT / file).read_text() in blocks(page)


def test_defaults_are_those_of_the_code():
    text = (ROOT / "docs" / "algorithms.md").read_text()
    stated = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.M))
    true = {}
    for cls in algorithms().values():
        true |= cls().settings()
    assert stated.keys() == true.keys()
    for name, value in true.items():
        numerator, _, denominator = stated[name].partition("/")
        given = stated[name]
        if denominator:
            given = int(numerator) / int(denominator)
        elif not isinstance(value, str):
            given = ast.literal_eval(given)
        assert given == value, name


def test_every_algorithm_has_its_section():
    text = (ROOT / "docs" / "algorithms.md").read_text()
    for name in algorithms():
        assert re.search(rf"^## {name.upper()}: ", text, re.M)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_formats_recipe_for_numpy_alone(tmp_path, monkeypatch):
    settings = {"environments": 2, "learning_starts": 10, "buffer_size": 100, "recurrent": True}
    algorithm = coterie.VDN(**settings, sequence_length=2, hidden=(4, 6), sharing="shared")
    with quick_compilation(tmp_path / "compiled"):
        options = {"evaluations": 1, "final_episodes": 0, "out": tmp_path / "run"}
        coterie.train(algorithm, "matrix/climbing", 8, **options)
    monkeypatch.chdir(tmp_path / "run")
    recipe = next(block for block in blocks("formats.md") if "about = " in block)
    names = {"text": Path("policy/policy.json").read_text()}
    exec(recipe.replace('json.load(open("policy/policy.json"))', "json.loads(text)"), names)
    team = coterie.load(tmp_path / "run")
    memory, h = team.initial_memory(), np.zeros(6)
    for observation in (1.0, -2.0):
        seen = jnp.full((2, 1), observation)
        expected, memory = team.policy.step(memory, seen, jnp.zeros(2, bool))
        found, h = names["scores"](1, [observation], h)
        np.testing.assert_allclose(found, expected[1], atol=1e-5)
        np.testing.assert_allclose(h, memory[1], atol=1e-5)
