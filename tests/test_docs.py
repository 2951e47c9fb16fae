"""What the documentation shows is what the code is."""

import ast
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation

import coterie
from coterie.algorithms import algorithms
from coterie.storage.tree_files import write_tree

ROOT = Path(__file__).parent.parent
HOME = (
    "https://github.com/coterie-marl/coterie/(?:blob|tree)/main"
    "|https://raw.githubusercontent.com/coterie-marl/coterie/main"
)
"""What addresses of files of this repository begin with."""
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(name: str) -> list[str]:
    text = (ROOT / "docs" / name).read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("add-an-environment.md", "examples/two_doors.py"),
        ("your-environment.md", "examples/pettingzoo_doorway.py"),
        ("your-environment.md", "examples/gymnasium_colours.py"),
        ("your-network.md", "examples/attention_torso.py"),
        ("add-an-algorithm.md", "src/coterie/algorithms/vdn.py"),
        ("add-an-algorithm.md", "src/coterie/algorithms/maa2c.py"),
    ],
)
def test_whole_files_are_shown_as_they_are(page, file):
    assert (ROOT / file).read_text() in blocks(page)


SHARED = {
    "ValueSettings": "What the value-based algorithms share",
    "PolicySettings": "What the policy-gradient algorithms share",
    "VectorSettings": "Actions that are vectors",
    "ActorCritic": "What the actor-critics share",
    "ProximalSettings": "What IPPO and MAPPO share",
}


def sections() -> dict[str, dict[str, str]]:
    """Title of each section -> setting -> default, as its table states it."""
    text = (ROOT / "docs" / "algorithms.md").read_text()
    titled = (part.partition("\n") for part in re.split("^## ", text, flags=re.M)[1:])
    return {
        title.partition(":")[0]: dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", body, re.M))
        for title, _, body in titled
    }


def value_of(stated: str, like: object) -> object:
    numerator, _, denominator = stated.partition("/")
    if denominator:
        return int(numerator) / int(denominator)
    return stated if isinstance(like, str) else ast.literal_eval(stated)


@pytest.mark.parametrize("cls", algorithms().values(), ids=algorithms())
def test_defaults_are_those_of_the_code(cls):
    """An algorithm's defaults are in its own section, else in those of what it shares."""
    found = sections()
    stated = {}
    for base in reversed(cls.__mro__):
        stated |= found.get(SHARED.get(base.__name__, base.__name__), {})
    stated = {name: value for name, value in stated.items() if value != "—"}  # not a setting here
    true = cls().settings()
    assert stated.keys() == true.keys()
    for name, value in true.items():
        assert value_of(stated[name], value) == value, name


def test_every_algorithm_has_its_section():
    found = sections()
    for cls in algorithms().values():
        assert cls.__name__ in found


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
    for target in re.findall(rf"\]\((?:{HOME})/([^)#]+)", page.read_text()):
        assert (ROOT / target).exists(), target


def test_the_readme_leads_somewhere_from_an_index_too():
    """An index shows it outside of the repository: every link is a whole address."""
    links = re.findall(r"\]\(([^)]+)", (ROOT / "README.md").read_text())
    assert len(links) > 20
    assert all(link.startswith("https://") for link in links)


def test_citations_name_this_version():
    for name in ("README.md", "CITATION.cff"):
        (version,) = re.findall(r"^ *version\W+([\w.]+)", (ROOT / name).read_text(), re.M)
        assert version == coterie.__version__, name


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_no_section_of_a_page_stands_there_twice(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^## (.+)$", prose, re.M)
    assert len(titles) == len(set(titles))


def test_every_promise_names_tests_that_there_are():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "promises.md").read_text())
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(), (file, test)


def test_promises_recipe_reads_a_checkpoint_without_coterie(tmp_path):
    path = tmp_path / "state.safetensors"
    tree = {"weights": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(3)}
    write_tree(path, tree, {"env_steps": 7})
    names: dict[str, Any] = {}
    exec(next(block for block in blocks("promises.md") if "read_checked" in block), names)
    tensors, meta = names["read_checked"](path)
    assert meta == {"env_steps": 7}
    np.testing.assert_array_equal(tensors["weights"], tree["weights"])
    np.testing.assert_array_equal(tensors["key"], jax.random.key_data(tree["key"]))
    data = path.read_bytes()
    for position in (40, 300, len(data) - 1):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises((AssertionError, ValueError)):
            names["read_checked"](path)


@pytest.mark.slow
def test_formats_recipe_for_numpy_alone(tmp_path, monkeypatch):
    settings = {"environments": 2, "learning_starts": 10, "buffer_size": 200, "recurrent": True}
    algorithm = coterie.VDN(**settings, sequence_length=2, hidden=(4, 6), sharing="shared")
    with quick_compilation(tmp_path / "compiled"):
        options = {"evaluations": 1, "final_episodes": 0, "out": tmp_path / "run"}
        coterie.train(algorithm, "matrix/climbing", 8, **options)
    monkeypatch.chdir(tmp_path / "run")
    recipe = next(block for block in blocks("formats.md") if "about = " in block)
    names: dict = {}
    exec(recipe, names)
    team = coterie.load(tmp_path / "run")
    hidden_state, h = team.initial_hidden_state(), np.zeros(6)
    for observation in (1.0, -2.0):
        seen = jnp.full((2, 1), observation)
        expected, hidden_state = team.policy.step(hidden_state, seen, jnp.zeros(2, bool))
        found, h = names["scores"](1, [observation], h)
        np.testing.assert_allclose(found, expected[1], atol=1e-5)
        np.testing.assert_allclose(h, hidden_state[1], atol=1e-5)
