"""The example notebook runs, and shows progress, curves, tables and films in its cells."""

import os
import re
from pathlib import Path

import pytest

import coterie
from coterie.show.numbers import number

NOTEBOOK = Path(__file__).parent.parent / "examples" / "first_team.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_example_notebook_runs_and_shows_what_it_says(monkeypatch, tmp_path):
    import nbclient
    import nbformat

    monkeypatch.chdir(tmp_path)
    source = str(Path(coterie.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells)
    first = next(cell for cell in book.cells if "STEPS = " in cell.source)
    first.source = re.sub(r"STEPS = \S+", "STEPS = 4_000", first.source)
    nbclient.NotebookClient(book, timeout=200, kernel_name="python3").execute()
    training, shown, film, ended, acts = (c for c in book.cells[2:] if c.cell_type == "code")
    progress = training.outputs[0]["data"]["text/html"]
    assert "vdn on lbf/5x5-2p-1f · 2 agents · 2 seeds, 4,000 steps each" in progress
    assert "done: 4,0" in progress
    run = shown.outputs[0]["data"]["text/html"]
    assert "data:image/png;base64," in run
    assert "return of the team" in run
    assert "image/gif" in film.outputs[0]["data"]
    said = [output for output in ended.outputs if output["output_type"] == "stream"]
    assert "of 4,000 steps" in said[0]["text"]
    assert re.fullmatch(r"\[\d, \d\]", acts.outputs[0]["data"]["text/plain"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    algorithm = coterie.IA2C(environments=4, rollout_steps=5, hidden=(8,))
    return coterie.train(
        algorithm, "matrix/climbing", steps=400, seeds=2, evaluations=4, evaluation_episodes=4,
        final_episodes=4, out=tmp_path_factory.mktemp("shown") / "a <run>",
    )  # fmt: skip


def test_a_run_is_shown_with_its_curve_and_its_returns(run):
    page = run._repr_html_()
    assert page.count("<img") == 1
    assert "a &lt;run&gt;" in page
    assert "a <run>" not in page
    best = run.results["best"][run.config["metric"]]["mean"]
    assert f"<td>{number(best)}</td>" in page
    assert len(repr(run)) < 200


def test_a_run_without_a_directory_or_results_is_shown_too(run):
    algorithm = coterie.IA2C(environments=4, rollout_steps=5, hidden=(8,))
    bare = coterie.train(algorithm, "matrix/climbing", steps=40, final_episodes=0)
    page = bare._repr_html_()
    assert "no learning curve" in page
    assert "<table>" not in page
    assert "learning curve of" in coterie.open_run(run.path)._repr_html_()


def test_outside_of_a_notebook_a_training_shows_nothing(capsys):
    algorithm = coterie.IA2C(environments=4, rollout_steps=5, hidden=(8,))
    coterie.train(algorithm, "matrix/climbing", steps=40, final_episodes=0)
    assert capsys.readouterr() == ("", "")
