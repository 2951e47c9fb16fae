"""Learning curves: what is read, how seeds are put together, what is refused."""

import sys

import numpy as np
import pytest
from sealing import make_run

from coterie.errors import DamagedFile, UsageError
from coterie.show import curves
from coterie.show.metrics import in_words

RETURN = "eval/return/team_sum"


def write(run, records, algorithm="vdn", environment="matrix/climbing"):
    return make_run(run, records, algorithm=algorithm, environment=environment)


def evaluations(seeds=2, points=4):
    return [
        {"seed": s, "env_steps": 100 * k, RETURN: float(k + s), "eval/length": 1.0}
        for k in range(points)
        for s in range(seeds)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figures drawn, as plot makes them."""
    figures = []
    draw = curves.draw

    def keep(*args):
        figures.append(draw(*args))
        return figures[-1]

    monkeypatch.setattr(curves, "draw", keep)
    return figures


def test_plot_draws_mean_seeds_and_words(tmp_path, drawn):
    train = [{"seed": 0, "env_steps": 50, "loss": 1.0, "train/return/team_sum": 9.0}]
    run = write(tmp_path / "a", train + evaluations())
    before = {*sys.modules}
    out = curves.plot([run], tmp_path / "deep" / "curves.png", references={"random": 0.2})
    assert out.read_bytes().startswith(b"\x89PNG")
    (ax,) = drawn[0].axes
    *seeds, line, reference = ax.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [0, 100, 200, 300])
    np.testing.assert_array_equal(line.get_ydata(), [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_array_equal([own.get_ydata() for own in seeds], [[0, 1, 2, 3], [1, 2, 3, 4]])
    assert list(reference.get_ydata()) == [0.2, 0.2]
    assert not ax.collections
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["vdn (2 seeds)", "random"]
    assert ax.get_xlabel() == "environment steps"
    assert ax.get_ylabel() == "return of the team (sum over agents),\ngreedy"
    assert ax.get_title(loc="left") == "matrix/climbing"
    assert ax.xaxis.get_major_formatter()(2_500_000) == "2.5M"
    assert "matplotlib.pyplot" not in {*sys.modules} - before


def test_many_seeds_are_drawn_as_the_interval_of_their_mean(tmp_path, drawn):
    """Ten seeds 0 .. 9: the deviation is 3.0277, t(9) is 2.2622, half the width is 2.1659."""
    curves.plot([write(tmp_path / "a", evaluations(10))], tmp_path / "x.png")
    (ax,) = drawn[0].axes
    assert len(ax.get_lines()) == 1
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [4.5 - 2.1659, 7.5 + 2.1659], atol=1e-4)


def test_intervals_of_bounded_returns_stay_within_their_bounds(tmp_path, drawn):
    """Ten seeds at 0 or 2, and the sum over two agents is at most 2: their mean's t interval is
    1 ± 0.75, that of nine zeros and a two reaches below 0."""
    lines = [
        {"seed": s, "env_steps": k, "eval/return/team_sum": x, "eval/return/team_mean": x / 2}
        for k, ones in ((0, 5), (1, 1), (2, 9))
        for s in range(10)
        for x in [2.0 * (s < ones)]
    ]
    run = make_run(tmp_path / "a", lines, return_bounds=[0, 2], sizes={"action counts": [3, 3]})
    for metric, greatest in (("eval/return/team_sum", 2.0), ("eval/return/team_mean", 1.0)):
        curve = curves.aggregate("a", curves.series(run, metric))
        assert curve.low[1] < 0
        assert curve.high[2] > greatest
        curves.plot([run], tmp_path / "curves.png", metric=metric)
        (ax,) = drawn[-1].axes
        (band,) = ax.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (0.0, greatest)


def test_one_panel_an_environment_and_one_colour_an_algorithm(tmp_path, drawn):
    runs = [
        write(tmp_path / "a", evaluations(), "vdn", "matrix/climbing"),
        write(tmp_path / "b", evaluations(1), "qmix", "matrix/climbing"),
        write(tmp_path / "c", evaluations(), "qmix", "lbf/8x8-2p-3f"),
    ]
    curves.plot(runs, tmp_path / "x.svg")
    first, second = drawn[0].axes
    named = [line for line in first.get_lines() if not line.get_label().startswith("_")]
    looks = {line.get_label(): line.get_color() for line in named}
    assert looks.keys() == {"vdn (2 seeds)", "qmix (1 seed)"}
    assert second.get_lines()[0].get_color() == looks["qmix (1 seed)"]
    assert second.get_title(loc="left") == "lbf/8x8-2p-3f"
    assert len(set(looks.values())) == 2


def test_runs_alike_are_told_apart_by_their_directory(tmp_path, drawn):
    runs = [write(tmp_path / name, evaluations()) for name in ("fast", "slow")]
    curves.plot(runs, tmp_path / "x.pdf")
    texts = [t.get_text() for t in drawn[0].axes[0].get_legend().get_texts()]
    assert sorted(texts) == ["vdn · fast (2 seeds)", "vdn · slow (2 seeds)"]


def test_differing_steps_are_interpolated_and_never_extrapolated():
    curve = curves.aggregate("x", {0: {0: 0.0, 100: 10.0, 300: 30.0}, 1: {50: 0.0, 200: 15.0}})
    np.testing.assert_array_equal(curve.steps, [50, 100, 200])
    np.testing.assert_allclose(curve.mean, [2.5, 7.5, 17.5])
    assert curve.seeds == 2


def test_long_series_are_thinned():
    curve = curves.aggregate("x", {0: {k: float(k) for k in range(5000)}})
    assert len(curve.steps) == 400
    np.testing.assert_allclose(curve.mean, curve.steps)
    assert np.isnan(curve.low).all()


def test_seeds_without_common_steps_are_refused():
    with pytest.raises(UsageError, match="no steps in common"):
        curves.aggregate("x", {0: {0: 1.0, 10: 1.0}, 1: {20: 1.0}})


def test_later_lines_win_and_missing_values_are_left_out(tmp_path):
    records = [
        {"seed": 0, "env_steps": 0, RETURN: 1.0},
        {"seed": 0, "env_steps": 10, RETURN: 2.0},
        {"seed": 0, "env_steps": 10, RETURN: 3.0},
        {"seed": 0, "env_steps": 20, RETURN: float("nan")},
        {"seed": 0, "env_steps": 30, RETURN: None},
    ]
    assert curves.series(write(tmp_path / "a", records), RETURN) == {0: {0: 1.0, 10: 3.0}}


def test_a_line_being_written_is_left_out_but_damage_is_told(tmp_path):
    run = write(tmp_path / "a", evaluations(1, 2))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"seed": 0, "env_st')
    assert curves.series(run, RETURN) == {0: {0: 0.0, 100: 1.0}}
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n{}\n")
    with pytest.warns(DamagedFile, match=r"\.jsonl is damaged: lines 3, 4 are damaged; ev"):
        assert curves.series(run, RETURN) == {0: {0: 0.0, 100: 1.0}}


def test_one_evaluation_is_shown_as_a_point(tmp_path, drawn):
    curves.plot([write(tmp_path / "a", evaluations(1, 1))], tmp_path / "x.png")
    assert drawn[0].axes[0].get_lines()[0].get_marker() == "o"


def test_what_cannot_be_plotted_is_told(tmp_path):
    run = write(tmp_path / "a", evaluations())
    out = tmp_path / "x.png"
    with pytest.raises(UsageError, match="at least one run"):
        curves.plot([], out)
    with pytest.raises(UsageError, match=r"ends in .png, .pdf or .svg"):
        curves.plot([run], tmp_path / "x.bmp")
    with pytest.raises(UsageError, match="not a run directory"):
        curves.plot([tmp_path], out)
    with pytest.raises(UsageError, match=f"did you mean {RETURN}"):
        curves.plot([run], out, metric="eval/retrun/team_sum")
    fresh = write(tmp_path / "b", [{"seed": 0, "env_steps": 5, "train/return/team_sum": 1.0}])
    with pytest.raises(UsageError, match="no evaluations yet"):
        curves.plot([run, fresh], out)
    (fresh / "metrics.jsonl").unlink()
    with pytest.raises(UsageError, match="no evaluations yet"):
        curves.plot([fresh], out)
    for damaged in ("{", "[]", '{"algorithm": "vdn"}'):
        (fresh / "config.json").write_text(damaged)
        with pytest.raises(UsageError, match=r"config\.json is damaged"):
            curves.plot([fresh], out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("eval_sampled/length", "episode length (steps), sampled"),
        ("train/return/team_mean", "return per agent (mean), while exploring"),
        ("eval/return/agent/left", "return of left, greedy"),
        ("loss", "loss"),
        (
            ("eval/return/team_sum", "eval/return/team_sum"),
            "return of the team (sum over agents), greedy",
        ),
        (
            ("eval/return/team_sum", "eval_sampled/return/team_sum"),
            "return of the team (sum over agents), policies as they act",
        ),
    ],
)
def test_metrics_in_words(metric, words):
    assert in_words(metric) == words


def test_every_run_is_drawn_by_its_own_metric(tmp_path, drawn):
    """Stochastic policies as they are sampled, unless greedy play is asked for."""
    sampled = {"eval_sampled/return/team_mean": 9.0, "eval/return/team_mean": 3.0}
    line = [{"seed": 0, "env_steps": 0, **sampled}]
    own = make_run(tmp_path / "a", line, algorithm="ia2c", metric=next(iter(sampled)))
    other = write(tmp_path / "b", evaluations(1), "vdn", "lbf/8x8-2p-3f")
    for greedy, value in ((False, 9.0), (True, 3.0)):
        curves.plot([own, other], tmp_path / "x.png", greedy=greedy)
        first, second = drawn[-1].axes
        assert first.get_lines()[0].get_ydata() == [value]
        play = "greedy" if greedy else "sampled"
        assert first.get_ylabel() == f"return per agent (mean),\n{play}"
        assert second.get_ylabel() == "return of the team (sum over agents),\ngreedy"
