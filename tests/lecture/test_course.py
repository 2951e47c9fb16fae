"""Giving the lecture: what is kept, what is continued, what is refused, and what comes out."""

import contextlib
import dataclasses
import html
import json
import os
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from quick import quick_compilation

from coterie import envs
from coterie.algorithms import make
from coterie.cli import entry as cli
from coterie.errors import DamagedFile, NotFinite, UsageError
from coterie.lecture import experiments
from coterie.lecture.base import course
from coterie.lecture.base.blocks import learning_curves, mean_payoff, outcomes
from coterie.lecture.base.course import give
from coterie.lecture.base.experiment import Check, Experiment, Outcome, Recipe, Scale
from coterie.runs import api, plan
from coterie.runs import run as opened_runs
from coterie.runs.api import open_run
from coterie.runs.learner import learner
from coterie.show.report.blocks import Text
from coterie.storage.files import read_sealed, seal

SMALL = {"environments": 4, "hidden": (8,)}


class Trained(Experiment):
    """One training of ten iterations, saved after the third."""

    name, number, title = "trained", 1, "A game, learnt"  # type: ignore[assignment]
    source, about, minutes = "Lecture, somewhere", "Two agents play.", (30, 4)

    def recipes(self):
        recipe = Recipe(
            "ia2c", "matrix/climbing", 400, 2, SMALL, 200, 1, evaluations=2, final_episodes=4
        )
        return {"ia2c": recipe}

    def measure(self, trained, scale):
        return {"payoffs": mean_payoff(outcomes(trained["ia2c"])), "first": scale.seed}

    def checks(self, numbers):
        return [Check("Payoffs are payoffs", "11", "0 & less", numbers["payoffs"][0] <= 11)]

    def blocks(self, numbers, trained):
        return [learning_curves(trained, "eval/return/team_mean", {}, "How it went.")]


class Told(Experiment):
    """Nothing to train; it passes as long as the test says so."""

    name, number, title = "told", 2, "A tale, told"  # type: ignore[assignment]
    source, about, minutes = "Lecture, elsewhere", "One agent speaks.", (2, 1)
    times = 0
    truth: bool = True

    def measure(self, trained, scale):
        type(self).times += 1
        return {"quick": scale.quick}

    def checks(self, numbers):
        return [Check("Tales are true", "lecture", "so told", self.truth)]

    def blocks(self, numbers, trained):
        return [Text("Once upon a time.")]


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quick_compilation(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(autouse=True)
def lecture(monkeypatch):
    """A lecture of these two experiments."""
    monkeypatch.setattr(course, "experiments", lambda: {"trained": Trained(), "told": Told()})
    monkeypatch.setattr(Told, "times", 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole lecture, given once; tests that change it take a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "experiments", lambda: {"trained": Trained(), "told": Told()})
        out = tmp_path_factory.mktemp("lectures") / "whole"
        return out, give([], out)


@pytest.fixture
def given(finished, tmp_path):
    """A copy of the whole lecture, in a place of its own."""
    return shutil.copytree(finished[0], tmp_path / "lecture")


@pytest.fixture
def call(capsys, monkeypatch):
    """``call(line)``: exit status, standard output and standard error of one command."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(line):
        capsys.readouterr()
        status = cli.main(line.split())
        return status, *capsys.readouterr()

    return run


def events(names, out, scale=Scale()):  # noqa: B008
    """What a display is told while experiments run, without the facts; and the outcomes."""
    told = []
    found = give(names, out, scale, lambda event, facts: told.append(event))
    assert told.pop(0) == "begin"
    return told, found


def without_seconds(outcome: Outcome):
    """Everything that has to be the same whenever the same seeds are run."""
    trainings = {
        key: {k: v for k, v in training.items() if k not in ("seconds", "command")}
        for key, training in outcome.trainings.items()
    }
    return replace(outcome, seconds=0.0, trainings=trainings)


KEPT, DONE = ["item", "outcome"], ["item", "training", "outcome"]

# Items and their commands ------------------------------------------------------------------------


def test_the_lecture_has_eight_items_in_its_order():
    assert list(experiments()) == [
        "modes", "speaker-listener", "climbing", "equilibria",
        "decomposition", "igm", "lbf", "policy-gradient",
    ]  # fmt: skip
    assert [item.number for item in experiments().values()] == list(range(1, 9))
    assert all(item.name == name for name, item in experiments().items())


RECIPES = {
    (name, key, quick): recipe.at(Scale(quick, seed=3 * quick))
    for name, item in experiments().items()
    for key, recipe in item.recipes().items()
    for quick in (False, True)
}


class Called(Exception):
    """With what ``train`` was called; nothing is trained."""


def train(*args, **more):
    raise Called(args, more)


def called(what):
    with pytest.raises(Called) as caught:
        what()
    return caught.value.args


@pytest.mark.parametrize("which", RECIPES, ids=lambda w: f"{w[0]} {w[1]}{' quick' * w[2]}")
def test_a_command_is_the_training_it_stands_for(which, monkeypatch):
    """What the command line makes of it is what the lecture itself trains."""
    recipe, out = RECIPES[which], Path("some where")
    monkeypatch.setattr(api, "train", train)
    program, *words = shlex.split(recipe.command(out))
    assert program == "coterie"
    own, its = called(lambda: recipe._begin(out, lambda event, facts: None))
    typed, given = called(lambda: cli.main(words))
    assert own == (
        make(recipe.algorithm, **recipe.settings),
        recipe.environment,
        recipe.steps,
    )
    assert (*typed, given["steps"]) == own
    usual = {"evaluations": plan.EVALUATIONS, "final_episodes": opened_runs.FINAL_EPISODES}
    given |= {word: usual[word] for word in usual if given[word] is None}
    assert all(given[word] == its[word] for word in its if word != "report")
    assert (given["reward"], given["central"]) == (None, None)
    assert given["options"] == dataclasses.asdict(envs.family(recipe.environment).Options())


def test_names_of_runs_tell_trainings_apart():
    """One name, one training: experiments that share a run directory share all of the training."""
    trainings = {}
    for recipe in RECIPES.values():
        assert trainings.setdefault(recipe.name, recipe) == recipe
    assert RECIPES["climbing", "pac", False].name == "pac-climbing-20x300k"
    assert RECIPES["climbing", "pac", True].name == "pac-climbing-5x100k-from-3"


def test_the_scale_overrides_what_a_recipe_says():
    recipe = Trained().recipes()["ia2c"]
    assert recipe.at(Scale()) == recipe
    assert recipe.at(Scale(quick=True)) == replace(recipe, steps=200, seeds=1)
    assert recipe.at(Scale(quick=True, seeds=7, seed=2)) == replace(
        recipe, steps=200, seeds=7, seed=2
    )
    bare = replace(recipe, quick_steps=None, quick_seeds=None)
    assert bare.at(Scale(quick=True)) == bare
    other = replace(bare, quick_environment="matrix/stag-hunt", quick_settings={"lr": 0.5})
    assert other.at(Scale()) == other
    assert other.at(Scale(quick=True)) == replace(
        other, environment="matrix/stag-hunt", settings=SMALL | {"lr": 0.5}
    )


# Kept and run again ------------------------------------------------------------------------------


def test_a_lecture_leaves_runs_items_and_a_report(finished):
    out, (trained, told) = finished
    assert {path.name for path in out.iterdir()} == {".lock", "runs", "items", "report.html"}
    assert [path.name for path in (out / "runs").iterdir()] == ["ia2c-climbing-2x400"]
    kept = read_sealed(out / "items/trained.json")
    assert kept == trained.to_dict() | {"verdict": "passed"}
    assert (kept["numbers"]["first"], len(kept["numbers"]["payoffs"])) == (0, 2)
    training = kept["trainings"]["ia2c"]
    assert (training["steps"], training["seeds"]) == (400, 2)
    assert 0 < training["seconds"] < kept["seconds"]
    assert told.trainings == {}
    assert told.passed


def test_the_report_holds_every_item_its_claims_and_its_commands(finished):
    out, outcomes = finished
    page = html.unescape((out / "report.html").read_text())
    for outcome in outcomes:
        claim = outcome.checks[0]
        for words in (outcome.title, outcome.source, claim["claim"], claim["measured"]):
            assert words in page
        for training in outcome.trainings.values():
            assert training["command"] in page
    assert Trained.about in page
    assert "Once upon a time." in page
    assert "(quick)" not in page


def test_what_is_done_is_taken_over(given, finished):
    before = (given / "report.html").read_bytes()
    told, again = events([], given)
    assert told == KEPT * 2
    assert again == finished[1]
    assert Told.times == 0
    assert (given / "report.html").read_bytes() == before


def test_the_page_is_there_as_soon_as_an_item_is(tmp_path):
    pages = []

    def tell(event, facts):
        page = tmp_path / "report.html"
        if event in ("item", "outcome"):
            text = html.unescape(page.read_text()) if page.is_file() else ""
            pages.append([item.about in text for item in (Told, Trained)])

    give(["told", "trained"], tmp_path, tell=tell)
    assert pages == [[False, False], [True, False], [True, False], [True, True]]


@pytest.mark.parametrize(
    ("names", "scale", "minutes"),
    [
        ([], Scale(), 32),
        (["told"], Scale(quick=True), 1),
        (["trained"], Scale(quick=True, seeds=3), 12),
        (["trained"], Scale(seeds=1), 15),
    ],
)
def test_how_long_it_takes_is_said_before_it_begins(names, scale, minutes, tmp_path):
    """In proportion to the seeds of the trainings: here two, or one if quick."""

    def tell(event, facts):
        assert (event, facts["minutes"]) == ("begin", minutes)
        raise Called

    with pytest.raises(Called):
        give(names, tmp_path, scale, tell)


def test_the_same_seeds_give_the_same_numbers(finished, tmp_path):
    told, again = events(["trained"], tmp_path / "again")
    assert told == DONE
    assert without_seconds(again[0]) == without_seconds(finished[1][0])


@pytest.mark.slow
def test_other_seeds_give_other_numbers(given):
    (given / "items/trained.json").unlink()
    told, (other,) = events(["trained"], given, Scale(seeds=1, seed=1))
    assert told == DONE
    run = open_run(given / other.trainings["ia2c"]["run"])
    assert (run.config["seed"], run.config["seeds"]) == (1, 1)
    assert other.numbers["first"] == 1
    assert len(list((given / "runs").iterdir())) == 2


def test_another_scale_of_another_item_is_labelled(given):
    (given / "items/told.json").unlink()
    told, (quick,) = events(["told"], given, Scale(quick=True))
    assert (told, Told.times, quick.quick) == (KEPT, 1, True)
    page = html.unescape((given / "report.html").read_text())
    assert "A tale, told (quick)" in page
    assert "A game, learnt (quick)" not in page


@pytest.mark.parametrize(
    ("first", "then", "how"),
    [(Scale(), Scale(quick=True), "at its full size"),
     (Scale(quick=True, seeds=3), Scale(), "with --quick --seeds 3"),
     (Scale(seed=1), Scale(seed=2), "with --seed 1")],
    ids=["quick", "full", "other seeds"],
)  # fmt: skip
def test_an_outcome_of_another_scale_is_never_replaced(tmp_path, first, then, how):
    give(["told"], tmp_path, first)
    before = (tmp_path / "items/told.json").read_bytes()
    with refused(f"holds told as it was run {how}: choose another --out"):
        give(["trained", "told"], tmp_path, then)
    assert (tmp_path / "items/told.json").read_bytes() == before
    assert not (tmp_path / "runs").exists()
    assert Told.times == 1


def test_a_complete_training_keeps_what_it_learned_and_no_replay(given, tmp_path):
    """An item that reads parameters off a run finds the same ones as in an ordinary run."""
    path = given / "runs/ia2c-climbing-2x400"
    assert not (path / "checkpoints").exists()
    recipe = Trained().recipes()["ia2c"]
    plain = recipe._begin(tmp_path / "plain", lambda event, facts: None).path
    assert (plain / "checkpoints").is_dir()
    for seed in range(2):
        kept, whole = (jax.tree.leaves(learner(open_run(p), seed)) for p in (path, plain))
        assert len(kept) == len(whole)
        assert all(map(np.array_equal, kept, whole))
    with refused("is complete and keeps no checkpoint to go on from"):
        api.resume(path, steps=800)
    assert api.resume(plain, steps=440).steps == 440


@pytest.mark.slow
def test_a_training_that_was_cut_off_before_it_was_settled(given, finished, tmp_path):
    """The last checkpoint and what stands for it may both be there."""
    path = given / "runs/ia2c-climbing-2x400"
    plain = Trained().recipes()["ia2c"]._begin(tmp_path / "plain", lambda event, facts: None).path
    (given / "items/trained.json").unlink()
    for kept in (True, False):
        shutil.copytree(plain / "checkpoints", path / "checkpoints")
        if not kept:
            (path / "learner.safetensors").unlink()
        events(["trained"], given)
        assert not (path / "checkpoints").exists()
        assert jax.tree.leaves(learner(open_run(path)))
        (given / "items/trained.json").unlink()


@pytest.mark.slow
def test_a_training_that_diverged_fails_the_verdict(monkeypatch, tmp_path):
    train = Recipe.train

    def diverged(self, home, report):
        run = train(self, home, report)
        first = jax.tree.leaves(run.policies["last"])[0]
        first[1] = np.nan
        return run

    monkeypatch.setattr(Recipe, "train", diverged)
    told, (failed, passed) = events([], tmp_path)
    assert told == DONE + KEPT
    assert (failed.passed, passed.passed) == (False, True)
    (check,) = failed.checks
    assert check["measured"] == "ia2c-climbing-2x400 has diverged in seed 1"
    page = html.unescape((tmp_path / "report.html").read_text())
    assert check["measured"] in page
    assert failed.trainings["ia2c"]["command"] in page


def test_a_training_that_stops_at_a_bad_number_fails_the_verdict(monkeypatch, tmp_path):
    def stopped(self, path, report):
        raise NotFinite("the loss", 1, 240)

    monkeypatch.setattr(Recipe, "_begin", stopped)
    told, (failed, passed) = events([], tmp_path)
    assert told == DONE + KEPT
    assert (failed.passed, passed.passed) == (False, True)
    measured = failed.checks[0]["measured"]
    assert measured.startswith("ia2c-climbing-2x400 has diverged: ")
    assert str(NotFinite("the loss", 1, 240)) in measured
    assert measured in html.unescape((tmp_path / "report.html").read_text())


def test_a_number_that_is_not_finite_fails_the_verdict(monkeypatch, tmp_path):
    monkeypatch.setattr(Told, "measure", lambda self, trained, scale: {"x": float("nan")})
    _told, (failed,) = events(["told"], tmp_path)
    assert not failed.passed
    assert failed.checks[0]["measured"] == "told: a number that was measured is not finite"


def resealed(**changed):
    """Damage that has the right digest."""
    return lambda text: json.dumps(seal(json.loads(text) | changed))


DAMAGE = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "not a document": lambda text: "[1, 2]",
    "nothing": lambda text: "null",
    "of something else": lambda text: '{"item": "told"}',
    "without a digest": lambda text: json.dumps(
        {k: v for k, v in json.loads(text).items() if k != "digest"}
    ),
    "of another version": resealed(fingerprint="0"),
    "with another number": lambda text: text.replace('"passed": true', '"passed": false'),
    "with checks that are none": resealed(checks=5),
    "with trainings that are none": resealed(trainings=[3]),
    "with nameless checks": resealed(checks=[{}]),
    "with numbers that are none": lambda text: json.dumps(json.loads(text) | {"numbers": "?"}),
}


def named(how):
    """Damage is named; what is of another version is whole."""
    whole = how == "of another version"
    return contextlib.nullcontext() if whole else pytest.warns(DamagedFile, match=r"told\.json is ")


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_result_is_made_again(given, how):
    path = given / "items/told.json"
    whole = path.read_text()
    path.write_text(DAMAGE[how](whole))
    assert path.read_text() != whole
    with named(how):
        _told, (outcome,) = events(["told"], given)
    assert (Told.times, outcome.passed) == (1, True)
    assert without_seconds(Outcome.from_dict(json.loads(path.read_text()))) == without_seconds(
        Outcome.from_dict(json.loads(whole))
    )


@pytest.mark.parametrize("how", [how for how in DAMAGE if how != "of another version"])
def test_a_damaged_result_of_another_item_is_left_out_of_the_report(given, how):
    path = given / "items/told.json"
    path.write_text(DAMAGE[how](path.read_text()))
    with named(how):
        events(["trained"], given)
    assert Told.title not in (given / "report.html").read_text()


@pytest.mark.slow
def test_a_result_whose_run_is_gone_is_made_again(given, finished):
    shutil.rmtree(given / "runs")
    told, (outcome,) = events(["trained"], given)
    assert told == DONE
    assert without_seconds(outcome) == without_seconds(finished[1][0])


def test_an_item_whose_run_is_gone_is_left_out_of_the_report(given):
    shutil.rmtree(given / "runs")
    told, _ = events(["told"], given)
    assert told == KEPT
    page = (given / "report.html").read_text()
    assert Told.title in page
    assert Trained.title not in page


# Cut off and continued ---------------------------------------------------------------------------


class Cut(Exception):
    """As a power cut: nothing more is written."""


def cut_after(event: str, times: int, error: type[BaseException] = Cut):
    """A report callback that is cut off at the next word after so many of these events."""
    seen = []

    def report(now, facts):
        if len(seen) == times:
            raise error
        seen.extend([now] * (now == event))

    return report


@pytest.mark.parametrize(
    "report",
    [pytest.param(cut_after("saving", 2), id="after two checkpoints", marks=pytest.mark.slow),
     pytest.param(cut_after("saving", 1), id="after one", marks=pytest.mark.slow),
     pytest.param(cut_after("progress", 1), id="before any", marks=pytest.mark.slow),
     pytest.param(cut_after("saving", 1, KeyboardInterrupt), id="by Ctrl-C")],
)  # fmt: skip
def test_an_interrupted_training_goes_on_to_the_same_numbers(report, finished, tmp_path):
    out = tmp_path / "cut"
    with pytest.raises((Cut, KeyboardInterrupt)):
        give([], out, report=report)
    assert not (out / "items/trained.json").exists()
    told, outcomes = events([], out)
    assert told == DONE + KEPT
    assert [without_seconds(o) for o in outcomes] == [without_seconds(o) for o in finished[1]]
    assert logged(out) == logged(finished[0])


def logged(out: Path):
    """The training's log, without times."""
    lines = (out / "runs/ia2c-climbing-2x400/metrics.jsonl").read_text().splitlines()
    times = ("seconds", "steps_per_second", "steps_per_second_total", "digest")
    return [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]


@pytest.mark.slow
def test_a_request_to_stop_keeps_what_was_learnt_and_ends_the_lecture(finished, tmp_path):
    """A first Ctrl-C lets the chunk end: the run returns, short of its steps."""

    def report(event, facts):
        if event == "progress" and facts["env_steps"] == 160:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        give([], tmp_path, report=report)
    assert (tmp_path / "runs/ia2c-climbing-2x400/checkpoints/160").is_dir()
    told, outcomes = events([], tmp_path)
    assert told == DONE + KEPT
    assert [without_seconds(o) for o in outcomes] == [without_seconds(o) for o in finished[1]]


def test_what_was_given_before_an_interruption_is_in_the_report(tmp_path):
    def report(event, facts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give(["told", "trained"], tmp_path, report=report)
    page = (tmp_path / "report.html").read_text()
    assert Told.title in page
    assert Trained.title not in page


# Refused -----------------------------------------------------------------------------------------


def refused(sentence: str):
    return pytest.raises(UsageError, match=sentence)


def test_an_unknown_item_is_told_the_nearest(tmp_path):
    with refused("the lecture has no experiment 'trainde'; did you mean trained\\?"):
        give(["told", "trainde"], tmp_path)
    with refused("no experiment 'xyz'; it has trained, told"):
        give(["xyz"], tmp_path)
    assert not list(tmp_path.iterdir())
    assert Told.times == 0


def test_a_place_in_use_is_left_alone(tmp_path):
    mine = tmp_path / "thesis.tex"
    mine.write_text("mine")
    with refused("thesis.tex is a file; choose another --out"):
        give([], mine)
    with refused(r"holds something else \(thesis.tex\); choose another --out"):
        give([], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert mine.read_text() == "mine"


CHANGES = {
    "another setting": lambda config: config["settings"].update(gamma=0.5),
    "other steps": lambda config: config.update(steps=80),
    "another game": lambda config: config.update(environment="matrix/stag-hunt"),
    "another algorithm": lambda config: config.update(algorithm="maa2c"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_of_other_settings_is_refused(given, change):
    path = given / "runs/ia2c-climbing-2x400/config.json"
    config = json.loads(path.read_text())
    CHANGES[change](config)
    path.write_text(json.dumps(seal(config)))
    (given / "items/trained.json").unlink()
    with refused("ia2c-climbing-2x400 holds a training with other settings: choose another --out"):
        give(["trained"], given)
    assert (given / "runs/ia2c-climbing-2x400/policy").is_dir()


# The command -------------------------------------------------------------------------------------


def test_the_command_tells_every_claim_and_where_the_report_is(call, given):
    status, out, err = call(f"lecture --out {given}")
    assert status == 0
    for words in ("Payoffs are payoffs", "0 & less", "Tales are true", "✓", "report.html"):
        assert words in out
    assert "idle cores" not in err  # nothing is left to be done
    assert "1/2  A game, learnt" in err
    assert "2/2  A tale, told" in err
    assert "✗" not in out


def test_a_claim_that_fails_is_the_status(call, monkeypatch, tmp_path):
    monkeypatch.setattr(Told, "truth", False)
    status, out, err = call(f"lecture told --out {tmp_path}/no")
    assert (status, "✗" in out, "failed" in out) == (1, True, True)
    assert "1 experiment to run: about 2 minutes on two idle cores" in err
    status, out, _ = call(f"lecture told --out {tmp_path}/no --json")
    document = json.loads(out)
    assert (status, document["passed"]) == (1, False)
    (item,) = document["items"]
    assert item["verdict"] == "failed"
    assert item["checks"][0]["passed"] is False


def test_json_is_one_document_and_nothing_else(call, given, finished):
    status, out, _ = call(f"lecture --out {given} --json")
    items = [outcome.to_dict() for outcome in finished[1]]
    assert status == 0
    assert json.loads(out) == {"passed": True, "items": items}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [("tolt", "did you mean told?"), ("told --seeds 0", "seeds must be a whole number from 1 to"),
     ("told --seed -1", "seed must be a whole number"), ("--fast", "unknown option --fast")],
)  # fmt: skip
def test_bad_usage_is_one_sentence(call, tmp_path, line, sentence):
    status, out, err = call(f"lecture {line} --out {tmp_path}/x")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("coterie: ")
    assert sentence in err
    assert not (tmp_path / "x").exists()
