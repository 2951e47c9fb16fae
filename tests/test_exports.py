"""An exported team does what the team does, on the same observations, masks and hidden states."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from own_algorithms import Half
from quick import quick_compilation

import coterie
from coterie import UsageError
from coterie.cli.entry import main
from coterie.envs.matrix import MatrixGame
from coterie.jax_envs import make

TINY = {"evaluations": 1, "evaluation_episodes": 1, "final_episodes": 0}
VALUE = {"environments": 2, "learning_starts": 8, "buffer_size": 64, "batch_size": 4}
POLICY = {"environments": 4}
TEAMS = {
    "shared": lambda _: (
        coterie.VDN(**VALUE, hidden=(8,), normalise_observations=True, layer_norm=True),
        "lbf/5x5-2p-1f",
    ),
    "own, recurrent": lambda _: (
        coterie.IA2C(**POLICY, hidden=(8, 6), recurrent=True, sharing="own", lr=0.01),
        "lbf/5x5-3p-2f-2s-pen",
    ),
    "grouped, recurrent": lambda _: (
        coterie.IDQN(
            **VALUE, hidden=(6,), recurrent=True, sequence_length=4, groups=("agent_0,agent_2",)
        ),
        "lbf/6x6-3p-2f",
    ),
    "unequal actions": lambda folder: (
        coterie.IA2C(**POLICY, hidden=(8,), activation="tanh", lr=0.01),
        f"matrix/{payoffs(folder)}",
    ),
}


def payoffs(folder: Path) -> Path:
    path = folder / "game.json"
    actions = [["<up", "down"], ["a", "b", "c"]]
    path.write_text(json.dumps({"payoffs": [[1, 2, 3], [4, 0, 5]], "actions": actions}))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Each team, trained once when it is asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name: str) -> Path:
        if name not in made:
            algorithm, environment = TEAMS[name](folder)
            made[name] = folder / name.replace(", ", "-").replace(" ", "-")
            options = {"rounds": 3} if environment.startswith("matrix") else {}
            with quick_compilation(folder / "compiled"):
                coterie.train(algorithm, environment, 160, out=made[name], options=options, **TINY)
        return made[name]

    return run


def episodes(team, steps=1000, length=25, absent=True):
    """Of each step: observations, masks (None where all is legal), whether an episode begins."""
    random = np.random.default_rng(0)
    for t in range(steps):
        observations = [random.integers(-1, 6, n).astype(float) for n in team.observation_sizes]
        masks = [random.random(n) < 0.6 for n in team.action_counts]
        for i in range(len(team.agents)):
            masks[i][random.integers(team.action_counts[i])] = True
            if absent and random.random() < 0.1:
                observations[i] = None
        yield observations, masks if t % 2 else None, t % length == 0


def played(team, **options):
    """What the team itself does along these episodes: actions, and hidden states after them."""
    found = []
    for observations, masks, begins in episodes(team, **options):
        h = team.initial_hidden_state() if begins else h
        actions, h = team.act(observations, h, masks)
        found.append((actions, np.asarray(h)))
    return found


def arrays(team, observations, masks):
    """Padded, [N, O], [N, A] and [N]; of an agent that is not there the first action is legal.

    Flags of actions that an agent does not have are set: padding may be anything.
    """
    n = len(team.agents)
    seen = np.zeros((n, max(team.observation_sizes)), np.float32)
    legal = np.ones((n, max(team.action_counts)), bool)
    for i, own in enumerate(observations):
        legal[i, : team.action_counts[i]] = True if masks is None else masks[i]
        if own is None:
            legal[i] = np.arange(legal.shape[1]) == 0
        else:
            seen[i, : len(own)] = own
    return seen, legal, np.array([own is not None for own in observations])


def same(team, found, act, initial, **options):
    """Plays the same with ``act(observations, hidden, masks)``, and compares each step."""
    kinds = set()
    for (actions, after), (observations, masks, begins) in zip(
        found, episodes(team, **options), strict=True
    ):
        h = initial if begins else h
        mine, h = act(observations, h, masks)
        assert [a for a, o in zip(mine, observations, strict=True) if o is not None] == [
            a for a in actions if a is not None
        ]
        np.testing.assert_allclose(h, after, atol=1e-5)
        kinds.add(tuple(mine))
    assert len(kinds) > 4  # else nothing was compared


def refuses_what_does_not_fit(team):
    """One sentence each, as the team itself has."""
    h, first = team.initial_hidden_state(), team.agents[0]
    seen = [np.zeros(size) for size in team.observation_sizes]
    masks = [np.ones(count) for count in team.action_counts]
    for given, sentence in (
        ((seen[1:], h), "observations must be a list with one for each of agent_0, "),
        ((dict(zip(team.agents, seen, strict=True)), h), "observations must be a list"),
        (
            ([[0], *seen[1:]], h),
            rf"observations: {first} takes a vector of \d+; got the shape \(1,",
        ),
        ((seen, h, masks[1:]), "action_masks must be a list with one for each of agent_0, "),
        ((seen, h, [[True] * 9, *masks[1:]]), rf"action_masks: {first} takes a vector of \d; got"),
        ((seen, h[:1]), r"hidden_state must have the shape \(\d, \d\); got \(1, "),
    ):
        with pytest.raises(ValueError, match=sentence):
            team.act(*given)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEAMS)
def test_every_format_acts_as_the_team_does(name, runs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    team = coterie.load(runs(name))
    found = played(team)
    h0 = np.asarray(team.initial_hidden_state())

    folder = coterie.export(runs(name), "numpy", tmp_path / "numpy")
    module = importlib.util.spec_from_file_location("exported", folder / "team.py")
    alone = importlib.util.module_from_spec(module)
    module.loader.exec_module(alone)
    exported = alone.Team()
    assert exported.agents == team.agents
    refuses_what_does_not_fit(exported)
    same(team, found, exported.act, exported.initial_hidden_state())

    path = coterie.export(runs(name), "onnx", tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def by_onnx(observations, h, masks):
        seen, legal, _ = arrays(team, observations, masks)
        given = {"observations": seen[None], "action_masks": legal[None]}
        given |= {"hidden_state": h[None]} if h0.size else {}
        actions, outputs, *after = session.run(None, given)
        assert outputs.shape == (1, *legal.shape)
        return actions[0].tolist(), after[0][0] if after else h

    same(team, found, by_onnx, h0)

    path = coterie.export(runs(name), "stablehlo", tmp_path / "x.stablehlo")
    function = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)

    def by_stablehlo(observations, h, masks):
        seen, legal, alive = arrays(team, observations, masks)
        actions, (h,) = function(seen, (h,), legal, alive)
        return actions.tolist(), h

    same(team, found, by_stablehlo, h0)


@pytest.mark.slow
def test_the_numpy_module_needs_numpy_alone_and_onnx_takes_many_episodes_at_once(runs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run = runs("own, recurrent")
    folder = coterie.export(run, "numpy", tmp_path / "numpy", which="last")
    code = (
        "import sys; from team import Team; team = Team(); h = team.initial_hidden_state();"
        "print(team.act([[0] * n for n in team.observation_sizes], h)[0]);"
        "assert not {'jax', 'coterie', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    team = coterie.load(run, which="last")
    zeros = [np.zeros(size) for size in team.observation_sizes]
    expected, _ = team.act(zeros, team.initial_hidden_state())
    assert json.loads(done.stdout) == expected
    path = coterie.export(run, "onnx", tmp_path / "x.onnx", which="last")
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    given = {
        "observations": np.zeros((7, 3, team.observation_sizes[0]), np.float32),
        "action_masks": np.ones((7, 3, 6), bool),
        "hidden_state": np.zeros((7, 3, 6), np.float32),
    }
    actions, *_ = session.run(None, given)
    assert actions.tolist() == [expected] * 7
    assert json.loads(session.get_modelmeta().custom_metadata_map["agents"]) == list(team.agents)


@pytest.mark.slow
def test_stablehlo_holds_teams_that_other_formats_refuse(tmp_path):
    run = tmp_path / "run"
    algorithm = coterie.CentralQ(**VALUE, hidden=(6,), frame_stack=2)
    with quick_compilation(tmp_path / "compiled"):
        coterie.train(algorithm, "lbf/5x5-2p-1f", 32, out=run, **TINY)
    for format in ("numpy", "onnx", "html"):
        with pytest.raises(UsageError, match=r"trained by central learning.*stablehlo"):
            coterie.export(run, format, tmp_path / "nothing" / f"x{ending(format)}")
    assert not (tmp_path / "nothing").exists()
    path = coterie.export(run, "stablehlo", tmp_path / "x.stablehlo")
    function = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    team = coterie.load(run)
    h, leaves = None, None
    for observations, masks, begins in episodes(team, 100):
        if begins:
            h = team.initial_hidden_state()
            leaves = tuple(jax.tree.leaves(h))
        expected, h = team.act(observations, h, masks)
        seen, legal, alive = arrays(team, observations, masks)
        actions, leaves = function(seen, leaves, legal, alive)
        there = [a for a, here in zip(actions.tolist(), alive, strict=True) if here]
        assert there == [a for a in expected if a is not None]


@pytest.mark.slow
def test_stablehlo_holds_actions_that_are_numbers(tmp_path):
    run = tmp_path / "run"
    algorithm = coterie.IA2C(environments=4, hidden=(6,), action_bounds="tanh", least_std=0.1)
    options = {"continuous_actions": True}
    with quick_compilation(tmp_path / "compiled"):
        coterie.train(algorithm, "mpe/simple-spread", 40, out=run, options=options, **TINY)
    with pytest.raises(UsageError, match=r"actions that are vectors.*stablehlo"):
        coterie.export(run, "onnx", tmp_path / "x.onnx")
    path = coterie.export(run, "stablehlo", tmp_path / "x.stablehlo")
    function = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    team, random = coterie.load(run), np.random.default_rng(0)
    h = team.initial_hidden_state()
    legal = np.ones((3, max(team.action_counts, default=0) or function_flags(path)), bool)
    for _ in range(20):
        seen = random.normal(size=(3, team.observation_sizes[0])).astype(np.float32)
        expected, _ = team.act(list(seen), h)
        actions, _ = function(seen, (h,), legal, np.ones(3, bool))
        np.testing.assert_allclose(actions, expected, atol=1e-6)


def function_flags(path: Path) -> int:
    """How many flags an action mask has."""
    return jax.export.deserialize(bytearray(path.read_bytes())).in_avals[2].shape[1]


def ending(format: str) -> str:
    return "" if format == "numpy" else f".{format}"


# Code of the user's ------------------------------------------------------------------------------


def own_game():
    return make("matrix/climbing")


class OwnRules(MatrixGame):
    """Might have other rules than a page plays."""


def own_rules():
    return OwnRules([[11, -30, 0], [-30, 7, 0], [0, 6, 5]])


@pytest.mark.slow
def test_a_page_of_a_run_on_code_of_the_user_s_takes_it_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with quick_compilation(tmp_path / "compiled"):
        own = Half(**VALUE, hidden=(6,))
        coterie.train(own, "test_exports:own_game", 32, out="run", **TINY)
    code = ["--environment", "test_exports:own_game", "--algorithm", "own_algorithms:Half"]
    for given, lacks in (
        (code[:2], " ".join(code[2:])),
        (code[2:], " ".join(code[:2])),
    ):
        assert main(["export", "run", "--out", "x.html", *given]) == 2
        assert lacks in capsys.readouterr().err
    assert main(["export", "run", "--out", "x.html", *code]) == 0
    said = capsys.readouterr()
    assert said.out == "x.html\n"
    assert "open it in a browser" in said.err
    assert Path("x.html").stat().st_size > 10_000
    coterie.export("run", "html", "y.html", environment=own_game, algorithm=Half)
    assert Path("y.html").read_bytes() == Path("x.html").read_bytes()
    with pytest.raises(UsageError, match="a page plays matrix games"):
        coterie.export("run", "html", "z.html", environment=own_rules, algorithm=Half)
    assert main(["export", "run", "--out", "x.onnx"]) == 0  # needs neither


# The page ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", TEAMS)
def test_the_page_plays_as_the_team_and_the_environment_do(name, runs, tmp_path, visit):
    run = runs(name)
    shown = visit(coterie.export(run, "html", tmp_path / "x.html"))
    team = coterie.load(run)
    given = [
        ([o.tolist() for o in observations], masks and [m.tolist() for m in masks], begins)
        for observations, masks, begins in episodes(team, absent=False)
    ]
    mine = shown.evaluate(
        """(steps) => { let h; return steps.map(([observations, masks, begins]) => {
             if (begins) h = team.initialHiddenState()
             const [actions, after] = team.act(observations, h, masks)
             h = after
             return [actions, h] }) }""",
        given,
    )
    for (actions, after), (expected, state) in zip(mine, played(team, absent=False), strict=True):
        assert actions == expected
        np.testing.assert_allclose(np.reshape(after, state.shape), state, atol=1e-5)
    if "matrix" not in TEAMS[name](tmp_path)[1]:
        foraging_is_the_same(shown, TEAMS[name](tmp_path)[1])
    assert not shown.complaints
    assert all(address.startswith("file:") for address in shown.requests)


def foraging_is_the_same(shown, name):
    """Forty episodes' observations and rewards, from the same states by the same actions."""
    env = make(name)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    random = np.random.default_rng(0)
    for k in range(40):
        state, first = reset(jax.random.key(k))
        entities = np.asarray(state.entities)
        start = {
            "foods": entities[: env.food].tolist(), "players": entities[env.food :].tolist(),
            "spawned": float(state.spawned), "played": 0,
        }  # fmt: skip
        actions = random.choice(6, (15, env.players), p=[0.05, 0.15, 0.15, 0.15, 0.15, 0.35])
        mine = shown.evaluate(
            """([start, all]) => { let now = game.shown(start, []), found = [now]
                 for (const actions of all)
                   if (!now.over) found.push(now = game.step(now.state, actions))
                 return found.map((x) => [x.observations, x.rewards, x.over]) }""",
            [start, actions.tolist()],
        )
        np.testing.assert_array_equal(mine[0][0], first.observations)
        for t, (observations, rewards, over) in enumerate(mine[1:]):
            state, expected = step(jax.random.key(0), state, actions[t])
            np.testing.assert_array_equal(observations, expected.observations)
            np.testing.assert_allclose(rewards, expected.rewards, atol=1e-6)
            assert over == bool(expected.terminated)
    levels = shown.evaluate("Array.from({length: 300}, () => game.reset().state)")
    for state in levels:
        cells = [tuple(e[:2]) for e in state["players"] + state["foods"] if e[2] > 0]
        assert len(cells) == len(set(cells))
        assert {p[2] for p in state["players"]} <= {1, 2}
        for row, column, level in state["foods"]:
            assert not level or (0 < row < env.rows - 1 and 0 < column < env.cols - 1)


@pytest.mark.slow
def test_a_person_plays_foraging_by_keys_and_buttons(runs, tmp_path, visit):
    path = coterie.export(runs("shared"), "html", tmp_path / "x.html")
    for size, scheme in (((1280, 900), "light"), ((390, 844), "dark")):
        shown = visit(path, size, scheme)
        assert shown.evaluate("document.documentElement.scrollWidth") == size[0]
        assert "Step 0 of at most 50" in shown.locator("#status").inner_text()
        shown.evaluate("now.state.players[0] = [0, 0, 1]; now.state.players[1] = [4, 4, 1]")
        shown.keyboard.press("ArrowRight")
        shown.keyboard.press("ArrowLeft")
        assert shown.evaluate("now.state.players[0]") == [0, 0, 1]
        shown.get_by_role("button", name="south").click()
        assert shown.evaluate("now.state.players[0].slice(0, 2)") in ([1, 0], [0, 0])
        assert "Step 3" in shown.locator("#status").inner_text()
        shown.locator("#you").select_option("-1")
        shown.get_by_role("button", name="Next step").click()
        assert "Step 1" in shown.locator("#status").inner_text()
        while not shown.evaluate("now.over"):
            shown.evaluate("step()")
        assert "The episode is over" in shown.locator("#status").inner_text()
        shown.get_by_role("button", name="New episode").click()
        assert "Step 0" in shown.locator("#status").inner_text()
        assert not shown.complaints


@pytest.mark.slow
def test_a_person_plays_a_matrix_game_and_labels_are_not_obeyed(runs, tmp_path, visit):
    shown = visit(coterie.export(runs("unequal actions"), "html", tmp_path / "x.html"))
    expected, _ = coterie.load(runs("unequal actions")).act(
        [[0, 0, 0, 0, 0, 1]] * 2, np.zeros((2, 0))
    )
    shown.get_by_role("button", name="<up").click()
    rewards = [[1, 2, 3], [4, 0, 5]][0][expected[1]]
    assert shown.evaluate("now.rewards") == [rewards] * 2
    assert shown.evaluate("now.state.previous") == [0, expected[1]]
    assert shown.locator("td.chosen").inner_text() == f"▸ {rewards}"
    assert not shown.complaints


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_and_refuses_in_sentences(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = str(runs("shared"))
    assert main(["export", run, "--out", "a/b.html"]) == 0
    assert capsys.readouterr().out == "a/b.html\n"
    assert main(["export", run, "--format", "numpy"]) == 0
    assert main(["export", run, "--format", "numpy"]) == 0  # its own export is replaced
    assert sorted(p.name for p in Path("team").iterdir()) == ["team.npz", "team.py"]
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    Path("file").write_text("")
    capsys.readouterr()
    for args, sentence in (
        ([run], "--format must be given: one of onnx, stablehlo, html, numpy"),
        ([run, "--format", "numpy", "--out", "mine"], "mine holds thesis.tex, so it is no export"),
        ([run, "--format", "numpy", "--out", "x.npz"], "x.npz must be a folder, as the format is"),
        ([run, "--format", "numpy", "--out", "file"], "file is a file; the format numpy is a"),
        ([run, "--format", "onnx", "--out", "x.html"], "x.html must be a file that ends in .onnx"),
        ([run, "--format", "html", "--seed", "7"], "has no best policy of seed 7"),
        (["nowhere", "--format", "html"], "nowhere"),
    ):
        assert main(["export", *args]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert "Traceback" not in error
    assert Path("mine/thesis.tex").read_text() == "years of work"


@pytest.mark.slow
def test_without_the_package_onnx_the_extra_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match="ONNX needs the extra export"):
        coterie.export(runs("shared"), "onnx", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
