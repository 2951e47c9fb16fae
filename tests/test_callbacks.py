"""Callbacks see the whole log, end a run cleanly, and lose nothing by what they raise."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import coterie
from coterie.errors import UsageError
from coterie.runs.callbacks import Callbacks
from coterie.storage.run_directory import RunDirectory

TASK = {"steps": 400, "seeds": 2, "evaluations": 4, "evaluation_episodes": 4, "final_episodes": 4}


def ia2c():
    return coterie.IA2C(environments=4, rollout_steps=5, hidden=(8,))


def trained(out=None, **more):
    return coterie.train(ia2c(), "matrix/climbing", **(TASK | more), out=out)


def log(path):
    """The lines of a log, without what depends on the clock."""
    return [
        {k: v for k, v in line.items() if k != "seconds" and not k.startswith("steps_per")}
        for line in RunDirectory(path).lines()
    ]


def test_a_callback_is_told_every_line_of_the_log_in_its_order(tmp_path):
    events = []
    run = trained(tmp_path / "run", callback=events.append)
    written = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    told = [line for event in events for line in event.lines]
    assert told == [{k: v for k, v in line.items() if k != "digest"} for line in written]
    assert [events[0].kind, events[-1].kind] == ["start", "end"]
    assert sum(event.kind == "evaluation" for event in events) == 1 + TASK["evaluations"]
    assert events[-1].results == run.results
    assert events[0].config["algorithm"] == "ia2c"
    assert all(event.path == tmp_path / "run" for event in events)


def test_scores_are_means_over_seeds():
    scores = {}

    def note(event):
        if event.kind == "evaluation":
            metric = event.config["metric"]
            scores[event.env_steps] = event.score, [line[metric] for line in event.lines]

    trained(callback=note)
    assert list(scores) == [0, 100, 200, 300, 400]
    for score, each in scores.values():
        assert len(each) == TASK["seeds"]
        assert score == pytest.approx(sum(each) / len(each))


def test_a_callback_changes_nothing_of_a_run(tmp_path):
    trained(tmp_path / "calm")
    trained(tmp_path / "told", callback=lambda event: event.run, stop=lambda event: False)
    assert log(tmp_path / "told") == log(tmp_path / "calm")


@pytest.mark.parametrize("kind", ["train", "evaluation"])
def test_a_run_ends_where_a_callback_says_so(tmp_path, kind):
    def ask(event):
        return event.kind == kind and event.env_steps >= 140

    run = trained(tmp_path / "run", callback=ask)
    assert run.steps == {"train": 140, "evaluation": 200}[kind]
    assert run.complete
    assert set(run.results) == {"best", "last"}
    assert run.config["asked_steps"] == 400
    lines = log(tmp_path / "run")
    assert lines[-1]["env_steps"] == run.steps
    assert run.config["metric"] in lines[-1]
    opened = coterie.open_run(tmp_path / "run")
    assert opened.complete
    assert opened.steps == run.steps
    assert coterie.load(tmp_path / "run").env_steps is not None


def test_a_predicate_sees_evaluations_only(tmp_path):
    seen = []

    def stop(event):
        seen.append((event.kind, event.env_steps))
        return event.env_steps == 200

    assert trained(stop=stop).steps == 200
    assert seen == [("evaluation", 0), ("evaluation", 100), ("evaluation", 200)]


def test_a_run_that_should_end_before_it_learned_learns_a_little():
    run = trained(stop=lambda event: True)
    assert 0 < run.steps < 100


def test_the_same_command_finds_an_ended_run_complete_and_resume_extends_it(tmp_path):
    trained(tmp_path / "run", stop=lambda event: event.env_steps == 200)
    again = trained(tmp_path / "run", resume=True)
    assert (again.steps, again.complete) == (200, True)
    trained(tmp_path / "calm")
    longer = coterie.resume(tmp_path / "run", steps=400)
    assert longer.steps == 400
    assert "asked_steps" not in longer.config
    ends = [[line for line in log(tmp_path / n) if line["env_steps"] == 400][-2:]
            for n in ("run", "calm")]  # fmt: skip
    assert ends[0] == ends[1]


class Broken(Exception):
    pass


@pytest.mark.parametrize(("kind", "step"), [("start", 0), ("evaluation", 0), ("train", 60),
                                            ("train", 200), ("evaluation", 200)])  # fmt: skip
def test_what_a_callback_raises_is_raised_once_all_is_saved(tmp_path, kind, step):
    def broken(event):
        if event.kind == kind and event.env_steps == step:
            raise Broken("mine")

    with pytest.raises(Broken, match="mine") as raised:
        trained(tmp_path / "run", callback=broken)
    assert "coterie resume" in raised.value.__notes__[0]
    coterie.resume(tmp_path / "run")
    trained(tmp_path / "calm")
    assert log(tmp_path / "run") == log(tmp_path / "calm")


def test_what_is_raised_at_the_end_leaves_a_complete_run(tmp_path):
    def broken(event):
        if event.kind == "end":
            sys.exit(3)

    with pytest.raises(SystemExit):
        trained(tmp_path / "run", callback=broken)
    assert coterie.open_run(tmp_path / "run").complete


def test_an_event_holds_a_run_while_it_is_told(tmp_path):
    kept = []

    def evaluate(event):
        kept.append(event)
        if event.kind == "evaluation" and event.env_steps == 400:
            kept.append(event.run.evaluate(episodes=8, which="last"))

    trained(callback=evaluate)
    metrics = next(x for x in kept if isinstance(x, dict))
    assert metrics["eval/return/team_sum"]["seeds"] == 2
    with pytest.raises(UsageError, match="while the callback is called"):
        _ = kept[0].run


def test_callables_of_every_kind_are_called():
    class Full(list):
        def __call__(self, event):
            self.append(event.kind)

    class Falsy:
        called = 0

        def __call__(self, event):
            self.called += 1

        def __len__(self):
            return 0

    full, falsy = Full(), Falsy()
    trained(callback=full)
    trained(callback=falsy)
    assert full[0] == "start"
    assert falsy.called == len(full)
    assert trained(callback=lambda e: np.mean([e.env_steps]) >= 200).steps == 200


def test_every_end_is_told_once(monkeypatch):
    kinds = []

    def fail(run):
        raise OSError("the disk is full")

    monkeypatch.setattr("coterie.runs.loop.play_finally", fail)
    with pytest.raises(OSError, match="full"):
        trained(callback=lambda event: kinds.append((event.kind, event.complete)))
    assert kinds.count(("end", False)) == 1


def test_an_event_keeps_its_own_config():
    seen = []

    def change(event):
        event.config["steps"] = 1
        seen.append(event)

    assert trained(callback=change).config["steps"] == 400


def test_nothing_ends_before_it_goes_on(tmp_path):
    trained(tmp_path / "run")
    run = coterie.resume(tmp_path / "run", steps=800, callback=lambda event: event.kind == "start")
    assert run.steps == 800


def test_several_callbacks_in_their_order():
    seen = []
    trained(callback=[lambda e: seen.append(1), lambda e: seen.append(2)])
    assert seen == [1, 2] * (len(seen) // 2)


@pytest.mark.parametrize("given", [{"callback": 3}, {"stop": "late"}, {"callback": [print, None]}])
def test_what_cannot_be_called_is_refused(given):
    with pytest.raises(UsageError, match="must be callable"):
        Callbacks(**given)


def test_a_plateau_ends_a_run():
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    from early_stopping import Plateau

    plateau = Plateau(patience=2, least=0.1)
    scores = iter([1.0, 2.0, 2.05, 1.0])
    asked = [plateau(type("E", (), {"score": s})()) for s in scores]
    assert asked == [False, False, False, True]


def test_an_evaluation_is_filmed_on_request(tmp_path):
    def film(event):
        if event.kind == "evaluation" and event.env_steps == 200:
            coterie.watch(event.run, tmp_path / "now.gif", which="last")

    trained(callback=film)
    assert (tmp_path / "now.gif").read_bytes()[:4] == b"GIF8"
