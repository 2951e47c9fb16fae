"""What is shown of sweeps: sensitivity to settings, comparisons, the page and the picture."""

import contextlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import sweep_commands
from quick import quick_compilation

import coterie
from coterie import UsageError
from coterie.cli.entry import main
from coterie.show.report.of_runs import report
from coterie.show.sensitivity import best_results, normalised, scale_of, sensitivity, varied
from coterie.sweeps import api
from coterie.sweeps.engine import Engine
from coterie.sweeps.estimates import estimate
from coterie.sweeps.process import Ending
from coterie.sweeps.results import Result, results_of, studies_in
from coterie.sweeps.search import value_of
from coterie.sweeps.space import Axis

TINY = sweep_commands.TINY | {"algorithms": ["ia2c", "reinforce"], "seeds": 2}
OWN = "eval/return/team_mean"


def result(algorithm, environment, values, trial=None, **settings):
    values = np.array(values, np.float64)
    return Result(Path("r"), algorithm, environment, settings, "", trial, OWN, values, {})


RESULTS = [
    result("vdn", "a", [0.0, 4.0], lr=0.1, hidden=[8]),
    result("vdn", "a", [2.0, 6.0], lr=0.1, hidden=[8, 8]),
    result("vdn", "a", [9.0, 9.0], lr=0.001, hidden=[8]),
    result("vdn", "a", [5.0, 11.0], lr=0.001, hidden=[8, 8]),
    result("qmix", "a", [1.0, 1.0], lr=0.1),
    result("vdn", "b", [0.0, 1.0], lr=0.1, hidden=[8]),
    result("qmix", "b", [2.0, 4.0], lr=0.1),
]


def test_seeds_are_averaged_over_the_other_settings_and_stay_the_repetitions():
    scale, panels = sensitivity(RESULTS, "lr")
    assert (scale.kind, scale.joined) == ("log", True)
    assert [curve.label for curve in panels["a"]] == ["vdn", "qmix"]
    vdn, qmix = panels["a"]
    assert vdn.steps.tolist() == [0.001, 0.1]
    assert vdn.samples.tolist() == [[7.0, 1.0], [10.0, 5.0]]
    assert vdn.mean.tolist() == [8.5, 3.0]
    assert vdn.low[0] == pytest.approx(8.5 - 12.7062 * 1.5, abs=1e-3)  # t of one degree of freedom
    assert qmix.steps.tolist() == [0.1]
    scale, panels = sensitivity(RESULTS, "hidden")
    assert (scale.kind, scale.names) == ("names", ("8", "8x8"))
    assert [curve.label for curve in panels["a"]] == ["vdn"]
    with pytest.raises(UsageError, match="did you mean hidden"):
        sensitivity(RESULTS, "hiden")
    with pytest.raises(UsageError, match="; nothing does"):
        sensitivity(RESULTS[:1], "lr")


def test_an_incomplete_grid_is_compared_where_it_is_complete():
    cells = [result("vdn", "a", [lr + 10 * big] * 2, lr=lr, big=big)
             for lr, big in ((0.1, 0), (0.2, 0), (0.2, 1))]  # fmt: skip
    (curve,) = sensitivity(cells, "lr")[1]["a"]
    np.testing.assert_allclose(curve.mean, [0.1, 0.2])
    (curve,) = sensitivity(cells, "big")[1]["a"]
    np.testing.assert_allclose(curve.mean, [0.2, 10.2])
    (curve,) = sensitivity([cells[0], cells[2]], "lr")[1]["a"]
    np.testing.assert_allclose(curve.mean, [0.1, 10.2])  # nothing is complete: all that there is


def test_trials_are_points_of_their_own():
    trials = [result("vdn", "a", [k, k + 1], trial=k, lr=0.1 * k, gamma=0.9) for k in range(2)]
    trials.append(result("vdn", "a", [7, 8], trial=2, lr=0.3, gamma=0.99))
    (curve,) = sensitivity(trials, "gamma")[1]["a"]
    assert curve.steps.tolist() == [0.9, 0.9, 0.99]
    assert curve.mean.tolist() == [0.5, 1.5, 7.5]
    assert np.isnan(curve.low).all()


def test_options_of_an_environment_make_tasks_and_are_no_settings_to_choose():
    cells = [result("vdn", "a", [size * lr] * 2, **{"env.size": size, "lr": lr})
             for size in (1, 9) for lr in (0.1, 0.2)]  # fmt: skip
    best = best_results(cells, "max")
    assert [(task, r.varied["lr"]) for (task, _), (r, _) in best.items()] == [
        ("a · env.size 1", 0.2), ("a · env.size 9", 0.2)]  # fmt: skip
    assert list(sensitivity(cells, "lr")[1]) == ["a · env.size 1", "a · env.size 9"]
    (curve,) = sensitivity(cells, "env.size")[1]["a"]
    np.testing.assert_allclose(curve.mean, [0.15, 1.35])
    np.testing.assert_allclose(normalised(best, cells, "max")["vdn"], np.ones((2, 2)))


def test_intervals_keep_to_what_any_of_the_runs_can_return():
    def rounds(count):
        config = {"return_bounds": [0, count], "sizes": {"action counts": [2, 2]}}
        values = np.array([count, 0.9 * count]) / 2  # a mean over two agents
        return Result(Path("r"), "vdn", "a", {"rounds": count}, "", None, OWN, values, config)

    (curve,) = sensitivity([rounds(1), rounds(25)], "rounds")[1]["a"]
    assert curve.high[1] == 12.5
    none = Result(Path("r"), "vdn", "a", {"rounds": 30}, "", None, OWN, np.array([4.0, 15.0]), {})
    (curve,) = sensitivity([rounds(1), none], "rounds")[1]["a"]
    assert curve.high[1] > 15


def test_the_axis_suits_the_values():
    assert scale_of("x", [1, 2, 19]).kind == "linear"
    assert scale_of("x", [1, 20]).kind == "log"
    assert scale_of("x", [0, 20]).kind == "linear"
    assert scale_of("x", [False, True]).names == ("false", "true")
    assert varied([result("a", "e", [0], x=True), result("a", "e", [0], x=1)]) == {"x": [True, 1]}


def test_scores_are_from_the_worst_to_the_best_seed_of_all_settings():
    best = best_results(RESULTS, "max")
    assert {key: (r.varied["lr"], count) for key, (r, count) in best.items()} == {
        ("a", "vdn"): (0.001, 4), ("a", "qmix"): (0.1, 1),
        ("b", "vdn"): (0.1, 1), ("b", "qmix"): (0.1, 1)}  # fmt: skip
    scores = normalised(best, RESULTS, "max")
    np.testing.assert_allclose(scores["vdn"], [[9 / 11, 0], [9 / 11, 0.25]])
    np.testing.assert_allclose(scores["qmix"], [[1 / 11, 0.5], [1 / 11, 1]])
    least = best_results(RESULTS, "min")
    assert least["a", "vdn"][0].mean == 2.0
    assert normalised(least, RESULTS, "min")["qmix"][0] == pytest.approx([10 / 11, 0.5])
    assert list(normalised(best_results(RESULTS[:5], "max"), RESULTS, "max")) == []


class InProcess(Engine):
    """Cells one after the other in this process, so that they share its compiled programs."""

    def __init__(self, places, tell):
        super().__init__(tell)
        self.over = []

    def opened(self):
        return contextlib.nullcontext()

    def has_room(self):
        return not self.over

    def start(self, job):
        assert main(job.cell.command(job.path)) == 0
        self.over.append((job, Ending(0)))

    def is_busy(self):
        return bool(self.over)

    def ended(self):
        over, self.over = self.over, []
        return over

    def ask_to_stop(self, at_once):
        raise AssertionError("nobody asked")


def swept(tables, out, monkeypatch):
    programs = out.parent / "programs"
    monkeypatch.setattr(api, "Local", InProcess)
    with quick_compilation(programs):
        return coterie.sweep(tables, out, workers=1)


def embedded(page, word):
    """The data of the figure in whose panel titles a word stands."""
    texts = re.findall(r'<script type="application/json">(.*?)</script>', page)
    found = [json.loads(text) for text in texts]
    return next(d for d in found if any(word in p["title"] for p in d.get("panels", ())))


@pytest.mark.slow
def test_the_page_of_a_search_of_two_algorithms(tmp_path, monkeypatch, visit):
    out, rates = tmp_path / "first<sweep>", [1e-5, 1e-2]
    how = {"sampler": "grid", "space": {"lr": {"choices": rates}}}
    tables = TINY | {"search": how, "ia2c": {"reward": "sum"}}
    before = estimate([], api.searched(tables), out)
    assert before.unknown == tuple((name, "matrix/climbing") for name in TINY["algorithms"])
    assert before.seconds is None
    assert 10_000 < before.bytes < 10_000_000
    assert not before.partial
    made = swept(tables, out, monkeypatch)
    assert made.complete
    assert len(made.jobs) == 4
    assert estimate([], api.searched(tables), out).seconds == 0
    how["space"]["lr"]["choices"] = [*rates, 0.1]
    assert estimate([], api.searched(tables), out).seconds > 0

    results = results_of(out)
    assert {r.metric.partition("/")[2] for r in results} == {"return/team_mean"}
    monkeypatch.setattr("coterie.sweeps.search.FEW_TRIALS", 2)
    for study in studies_in(out, results):
        assert study.axes == (Axis("lr", tuple(rates)),)
        top = study.best_so_far()
        assert top == sorted(top)
        assert top[-1] == max(r.mean for r in results if r.study == study.name)
    page = report([out], tmp_path / "page.html")
    text = page.read_text()
    data = embedded(text, "lr · matrix/climbing")
    assert (data["x"]["kind"], data["x"]["joined"]) == ("log", False)
    for curve in data["panels"][0]["curves"]:
        assert curve["x"] == rates
        for k, rate in enumerate(rates):
            (own,) = [r for r in results if (r.algorithm, r.varied["lr"]) == (curve["label"], rate)]
            assert coterie.open_run(own.run).metrics[own.metric]["per_seed"] == own.values.tolist()
            assert [each[k] for each in curve["each"]] == pytest.approx([own.mean], abs=1e-3)
    drawn = embedded(text, "search · matrix/climbing")["panels"][0]["curves"]
    assert [curve["label"] for curve in drawn] == TINY["algorithms"]
    assert "PED-ANOVA" in text
    assert "Probability of improvement" in text
    assert text.count('class="viewer"') == 2  # the best run of each algorithm
    assert "4 of 4 cells are complete" in text
    shown = visit(page, size=(390, 800), scheme="dark")
    assert shown.complaints == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    assert "at lr 0.01" in shown.inner_text("main")

    with pytest.raises(UsageError, match="did you mean eval/return/team_sum"):
        value_of(results[0].run, "eval/return/team_summ")
    picture = tmp_path / "over.png"
    assert main(["plot", str(out), "--over", "lr", "--out", str(picture)]) == 0
    assert picture.stat().st_size > 5000
    assert main(["plot", str(out), "--over", "gamma", "--out", str(picture)]) == 2
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "needs the extra search" in report([out], tmp_path / "page.html").read_text()


def test_a_cell_that_cannot_be_trained_is_named_before_it_runs(tmp_path):
    wrong = api.planned(TINY | {"environments": ["matrix/climbin"]})
    assert "did you mean climbing" in estimate(wrong, (), tmp_path).problems[0]
