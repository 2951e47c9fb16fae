"""Runs from the user's side: what is written, resumed, evaluated, loaded, and acted with."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import types
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import quick_compilation
from safetensors.numpy import load_file
from sealing import rewrite

import coterie
from coterie import IDQN, QMIX, VDN, UsageError
from coterie.algorithms import make
from coterie.networks.per_agent import PerAgent
from coterie.runs import loop
from coterie.runs.api import open_run, resume, train
from coterie.runs.learner import finalise, learner
from coterie.runs.run import Run
from coterie.storage.files import seal
from coterie.storage.run_directory import RunDirectory
from coterie.storage.tree_files import CheckpointError
from coterie.training import loop as training
from coterie.training import memory
from coterie.views.game import Game

SMALL = {"environments": 4, "learning_starts": 100, "update_ratio": 1 / 4, "buffer_size": 2_000}
TINY = {**SMALL, "hidden": (8, 12), "batch_size": 16, "epsilon_steps": 300}
SMALL_POLICY = {"environments": 4, "rollout_steps": 4, "hidden": (8, 12)}
FORAGING, STEPS = "lbf/5x5-2p-1f", 1_200
WALL_CLOCK = {"seconds", "steps_per_second", "steps_per_second_total", "elapsed_time"}


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """Looks from the host after every other rollout."""
    with quick_compilation(tmp_path_factory.mktemp("compiled")) as patch:
        patch.setattr(training, "CHUNK_STEPS", 8)
        yield


class Doors(coterie.Environment):
    """Unequal agents, rewards that differ: left is paid its action, right always 3."""

    agents = ("left", "right")

    def spec(self):
        return coterie.EnvSpec(self.agents, (2, 1), (3, 2), time_limit=3)

    def reset(self, key):
        return jnp.zeros(()), self._show(jnp.zeros(()), jnp.zeros(2))

    def step(self, key, state, actions):
        return state + 1, self._show(state + 1, jnp.stack([actions[0] * 1.0, 3.0]))

    def _show(self, t, rewards):
        ended = jnp.array(False)
        return coterie.TimeStep((jnp.stack([t, 1.0]), jnp.ones(1)), rewards, ended, ended)


class Lottery(Doors):
    """Pays each agent 1 a step and ends at any step with probability 1/2."""

    def spec(self):
        return coterie.EnvSpec(self.agents, (1, 1), (2, 2), time_limit=30)

    def reset(self, key):
        return jnp.zeros(()), self._end(jnp.zeros(2), False)

    def step(self, key, state, actions):
        return state, self._end(jnp.ones(2), jax.random.bernoulli(key))

    def _end(self, rewards, ended):
        return coterie.TimeStep(jnp.ones((2, 1)), rewards, jnp.array(ended), jnp.array(False))


# Runs that several tests look at ---------------------------------------------------------------

TRAINED = {
    "feed-forward": (QMIX(**TINY, mixer_embedding=8, hyper_hidden=8), FORAGING, 2),
    "recurrent": (
        VDN(**TINY, recurrent=True, sequence_length=4, sharing="shared"),
        FORAGING,
        1,
    ),
    "dilemma": (IDQN(**TINY, lr=3e-3), "matrix/prisoners-dilemma", 4),
    "doors": (IDQN(**TINY, lr=3e-3), Doors, 3),
    "proximal": (
        make("ippo", **SMALL_POLICY, recurrent=True, epochs=2, minibatches=2, entropy_end=0.0),
        "matrix/climbing",
        2,
    ),
    "counterfactual": (
        make("coma", **SMALL_POLICY, reward_scaling="standardise", target_interval=7),
        "matrix/climbing",
        1,
    ),
    "central": (make("central_a2c", **SMALL_POLICY, recurrent=True), FORAGING, 1),
}
ROUNDS = {"options": {"rounds": 3}}


def start(kind: str, out: Path, **more) -> Run:
    algorithm, environment, seeds = TRAINED[kind]
    options = {"steps": STEPS, "seeds": seeds, "seed": 7, "evaluations": 5, "final_episodes": 8}
    if environment == "matrix/climbing":
        options |= ROUNDS
    return train(algorithm, environment, out=out, **(options | more))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """``trained(kind)``: the run of that kind, trained once."""
    folder = tmp_path_factory.mktemp("runs")
    return functools.cache(lambda kind: start(kind, folder / kind))


def lines(run: Run) -> list[dict]:
    """What was logged, each line of it good (a damaged one would be a warning, so an error)."""
    return list(RunDirectory(run.path).lines())


def evaluations(run: Run) -> dict:
    return json.loads((run.path / "evaluations.json").read_text())


def without_wall_clock(tree):
    if isinstance(tree, dict):
        return {k: without_wall_clock(v) for k, v in tree.items() if k not in WALL_CLOCK}
    return [without_wall_clock(x) for x in tree] if isinstance(tree, list) else tree


# What a run writes -----------------------------------------------------------------------------


def test_metrics_have_their_fixed_names(trained):
    run = trained("feed-forward")
    agents = ["return/agent/agent_0", "return/agent/agent_1"]
    returns = [*agents, "return/team_sum", "return/team_mean", "length"]
    always = {"seed", "env_steps"}
    progress = {"updates", "seconds", "steps_per_second", "steps_per_second_total"}
    progress |= {"train/learning_rate", "train/epsilon"}
    diagnostics = {"train/gradient_norm", "train/q_mean", "train/td_error"}
    train_names = {f"train/{name}" for name in returns}
    eval_names = {f"eval/{name}" for name in returns}
    kinds = set()
    for line in lines(run):
        names = set(line)
        if "updates" in names:
            optional = train_names | diagnostics | {"train/loss"}
            assert names - optional == always | progress
            assert not names & train_names or names >= train_names
            assert names & diagnostics == (diagnostics if "train/loss" in names else set())
            assert line["train/learning_rate"] == pytest.approx(5e-4)
            kinds |= {"train", *(["loss"] if "train/loss" in names else [])}
        else:
            assert names == always | eval_names
            kinds.add("eval")
    assert kinds == {"train", "loss", "eval"}
    assert set(run.metrics) == eval_names
    assert set(run.metrics["eval/length"]) >= {"mean", "iqm", "ci95", "per_seed"}


@pytest.mark.slow
def test_stochastic_policies_are_evaluated_greedily_and_by_drawing(trained):
    run = trained("proximal")
    names = [f"return/agent/agent_{i}" for i in range(2)]
    names += ["return/team_sum", "return/team_mean", "length"]
    judged = {f"{prefix}/{name}" for prefix in ("eval", "eval_sampled") for name in names}
    learning = {"train/actor_loss", "train/critic_loss", "train/entropy", "train/kl"}
    learning |= {"train/actor_gradient_norm", "train/critic_gradient_norm", "train/clip_fraction"}
    learning |= {"train/explained_variance", "train/learning_rate", "train/entropy_weight"}
    points = [line for line in lines(run) if "eval/length" in line or "eval_sampled/length" in line]
    for seed in (7, 8):
        for prefix in ("eval", "eval_sampled"):
            own = [p for p in points if p["seed"] == seed and f"{prefix}/length" in p]
            assert [p["env_steps"] for p in own] == [0, 240, 480, 720, 960, 1200]
    assert {name for p in points for name in p} == judged | {"seed", "env_steps"}
    assert set(run.metrics) == judged
    logged = [line for line in lines(run) if "updates" in line]
    assert all(line.keys() >= learning for line in logged)
    for line in logged:
        assert line["updates"] == line["env_steps"] // 16 * 4
        assert 0 < line["train/entropy"] <= 2 * np.log(3) + 1e-6
    opened = open_run(run.path).evaluate(episodes=8)
    assert set(opened) == judged == set(trained("central").metrics)


def test_steps_are_counted_per_seed_and_updates_follow_them(trained):
    run = trained("feed-forward")
    logged = [line for line in lines(run) if "updates" in line]
    assert {line["seed"] for line in logged} == {7, 8}
    for seed in (7, 8):
        own = [line["env_steps"] for line in logged if line["seed"] == seed]
        assert own == [12 * k for k in range(1, 101)]  # 100 lines, ends at --steps
    for line in logged:
        # A quarter of an update a step, none before the rollout that completes 100 steps.
        assert line["updates"] == max(line["env_steps"] - 96, 0) // 4
        assert line["steps_per_second_total"] == pytest.approx(2 * line["steps_per_second"])
        assert line["steps_per_second"] == pytest.approx(line["env_steps"] / line["seconds"])


def test_team_returns_are_sum_and_mean_of_the_agents_own(trained):
    run = trained("doors")
    for line in [line for line in lines(run) if "train/length" in line or "eval/length" in line]:
        kind = "train" if "train/length" in line else "eval"
        left, right = (line[f"{kind}/return/agent/{agent}"] for agent in ("left", "right"))
        assert right == 9.0  # 3 rewards of 3: whole episodes, the last reward included
        assert 0 <= left <= 6
        assert line[f"{kind}/length"] == 3.0
        assert line[f"{kind}/return/team_sum"] == pytest.approx(left + right)
        assert line[f"{kind}/return/team_mean"] == pytest.approx((left + right) / 2)


def test_evaluations_are_in_the_marl_eval_format(trained):
    run = trained("feed-forward")
    content = evaluations(run)
    assert list(content) == ["lbf"]
    assert list(content["lbf"]) == ["5x5-2p-1f"]
    assert list(content["lbf"]["5x5-2p-1f"]) == ["qmix"]
    seeds = content["lbf"]["5x5-2p-1f"]["qmix"]
    assert list(seeds) == ["seed_7", "seed_8"]
    for seed, own in seeds.items():
        assert list(own) == [*(f"step_{k}" for k in range(6)), "absolute_metrics"]
        points = [own[f"step_{k}"] for k in range(6)]
        assert [point["step_count"] for point in points] == [0, 240, 480, 720, 960, 1200]
        for point in points:
            assert set(point) == {"step_count", "elapsed_time", "return", "length"}
            assert len(point["return"]) == len(point["length"]) == 32
        assert len(own["absolute_metrics"]["return"]) == 8
        logged = [
            line["eval/return/team_sum"]
            for line in lines(run)
            if "eval/length" in line and f"seed_{line['seed']}" == seed
        ]
        np.testing.assert_allclose(logged, [np.mean(p["return"]) for p in points], atol=1e-6)


def test_an_environment_without_a_family_is_its_own_task(trained):
    ((name, tasks),) = evaluations(trained("doors")).items()
    assert list(tasks) == [name]


def test_config_names_everything_that_decides_a_run(trained):
    config = json.loads((trained("feed-forward").path / "config.json").read_text())
    algorithm = TRAINED["feed-forward"][0]
    algorithm = algorithm.resolve(STEPS)
    assert config["settings"] == json.loads(json.dumps(algorithm.settings()))
    expected = {
        "algorithm": "qmix", "environment": FORAGING, "reward": "sum", "central": "state",
        "environment_options": {}, "steps": STEPS, "seeds": 2, "seed": 7, "evaluations": 5,
        "final_episodes": 8,
    }  # fmt: skip
    assert config.items() >= expected.items()
    assert config["versions"]["jax"] == jax.__version__
    assert config["coterie"] == config["versions"]["coterie"] == coterie.__version__


@pytest.mark.parametrize(
    ("kind", "learning"),
    [pytest.param("dilemma", "lowers", marks=pytest.mark.slow), ("doors", "raises")],
)
def test_best_and_last_policies_are_what_they_are_called(trained, kind, learning):
    """Both games are deterministic, so a policy's return is known exactly."""
    run = trained(kind)
    seeds = evaluations(run)
    for _ in ("environment", "task", "algorithm"):
        (seeds,) = seeds.values()
    points = np.array([
        [np.mean(own[f"step_{k}"]["return"]) for k in range(6)] for own in seeds.values()
    ])  # fmt: skip
    best = points[:, 1:].max(1)  # the untrained ones do not compete
    if learning == "lowers":
        assert (points[:, 0] > best).any() or (best > points[:, -1]).any()
    else:
        assert (best > points[:, 0]).any()
    opened = open_run(run.path, Doors)
    for which, expected in (("best", best), ("last", points[:, -1])):
        for source in (run, opened):
            found = source.evaluate(episodes=2, which=which)["eval/return/team_sum"]["per_seed"]
            np.testing.assert_allclose(found, expected)
    for which, expected in (("best", best), ("last", points[:, -1])):
        found = run.results[which]["eval/return/team_sum"]["per_seed"]
        np.testing.assert_allclose(found, expected)
    at = [[own[f"step_{k}"]["step_count"] for k in range(6)] for own in seeds.values()]
    latest = [max(k for k in range(1, 6) if own[k] == own[1:].max()) for own in points]
    assert run.policy_steps["best"] == [steps[k] for steps, k in zip(at, latest, strict=True)]
    assert run.policy_steps["last"] == opened.policy_steps["last"] == [run.steps] * len(best)
    assert run.policy_steps["best"] == opened.policy_steps["best"]
    with pytest.raises(UsageError, match="best or last"):
        run.evaluate(episodes=2, which="first")


def test_without_out_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = start("dilemma", None, steps=40, final_episodes=0)
    assert run.path is None
    assert run.metrics == {}
    assert not list(tmp_path.iterdir())


# Resuming --------------------------------------------------------------------------------------


def interrupted(kind: str, out: Path, at: int, **more) -> coterie.Interrupted:
    """The run, stopped by Ctrl-C at the ``at``-th look from the host."""
    looks = []

    def report(event, facts):
        looks.append(event)
        if event == "progress" and looks.count("progress") == at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(coterie.Interrupted) as stopped:
        start(kind, out, report=report, **more)
    return stopped.value


@pytest.mark.parametrize(
    "kind",
    [
        "feed-forward",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("recurrent", "proximal", "counterfactual", "central")
        ),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(trained, tmp_path, kind, monkeypatch):
    whole = trained(kind)
    if kind == "feed-forward":  # a look after every iteration, on machines of any speed
        monkeypatch.setattr(loop, "CALL_SECONDS", 0.0)
    stopped = interrupted(kind, tmp_path / "run", at=38)
    monkeypatch.undo()
    assert 0 < stopped.steps < STEPS
    if kind == "feed-forward":  # between two lines of the log, so totals must survive too
        assert stopped.steps % 12
    assert not open_run(tmp_path / "run").complete
    assert open_run(tmp_path / "run").metrics == {}
    resumed = resume(tmp_path / "run")
    assert resumed.complete
    assert open_run(tmp_path / "run").complete
    assert resumed.steps == whole.steps
    for which in ("best", "last"):
        for a, b in zip(*map(jax.tree.leaves, (whole.policies[which], resumed.policies[which])),
                        strict=True):  # fmt: skip
            np.testing.assert_array_equal(a, b)
    assert without_wall_clock(lines(resumed)) == without_wall_clock(lines(whole))
    assert without_wall_clock(evaluations(resumed)) == without_wall_clock(evaluations(whole))
    assert resumed.metrics == whole.metrics
    for file in whole.path.glob("policy/**/*.*"):
        assert (resumed.path / file.relative_to(whole.path)).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_an_interruption_before_the_first_step_loses_nothing(trained, tmp_path):
    def at_once(event, facts):
        if event == "evaluation" and not facts["env_steps"]:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(coterie.Interrupted) as stopped:
        start("dilemma", tmp_path / "run", report=at_once)
    assert stopped.value.steps == 0
    resumed = resume(tmp_path / "run")
    whole = trained("dilemma")
    assert without_wall_clock(lines(resumed)) == without_wall_clock(lines(whole))
    assert without_wall_clock(evaluations(resumed)) == without_wall_clock(evaluations(whole))


@pytest.mark.slow
def test_what_a_killed_run_wrote_after_its_checkpoint_is_forgotten(trained, tmp_path):
    stopped = interrupted("dilemma", tmp_path / "run", at=40)
    log = stopped.path / "metrics.jsonl"
    log.write_text(log.read_text() + '{"seed": 7, "env_steps": 999999}\n')
    (stopped.path / "evaluations.json").write_text("{}")
    resumed = resume(stopped.path)
    assert without_wall_clock(lines(resumed)) == without_wall_clock(lines(trained("dilemma")))
    assert evaluations(resumed).keys() == evaluations(trained("dilemma")).keys()


def test_what_was_learned_is_read_off_the_run_that_learned_it_only(trained, tmp_path):
    shutil.copytree(trained("dilemma").path, tmp_path / "run")

    def opened(**changed):
        run = open_run(tmp_path / "run")
        return dataclasses.replace(run, config=run.config | changed)

    with pytest.raises(CheckpointError, match="is of another run"):
        learner(opened(seed=8))
    finalise(opened())
    assert jax.tree.leaves(learner(opened()))
    other = opened(seed=8)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"learner\.safetensors is of another run"):
            learner(other)


@pytest.mark.slow
def test_more_steps_extend_a_run(trained, tmp_path):
    """The extended run learns as if it had been asked for all steps at once."""
    start("dilemma", tmp_path / "run", steps=600)
    extended = resume(tmp_path / "run", steps=STEPS)
    assert extended.steps == STEPS
    assert json.loads((extended.path / "config.json").read_text())["steps"] == STEPS
    for a, b in zip(*(jax.tree.leaves(r.policies["last"]) for r in (extended, trained("dilemma"))),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    steps = [line["env_steps"] for line in lines(extended) if "updates" in line]
    assert steps == sorted(steps)


@pytest.mark.parametrize("steps", [None, 10, 1_200])
def test_a_complete_run_is_not_resumed_without_more_steps(trained, steps):
    run = trained("dilemma")
    before = {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()}
    with pytest.raises(UsageError, match="1,200 steps already"):
        resume(run.path, steps=steps)
    assert before == {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()}


def test_a_run_cut_off_in_its_final_evaluation_is_judged_when_resumed(trained, tmp_path):
    path = shutil.copytree(trained("feed-forward").path, tmp_path / "run")
    whole = json.loads((path / "evaluations.json").read_text())
    cut = json.loads((path / "evaluations.json").read_text())
    before = (path / "evaluations.json").read_bytes()
    for own in cut["lbf"]["5x5-2p-1f"]["qmix"].values():
        del own["absolute_metrics"]
    rewrite(path, cut)
    resume(path)
    assert (path / "evaluations.json").read_bytes() == before
    found = json.loads((path / "evaluations.json").read_text())
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(found), strict=True):
        assert a == b
    with pytest.raises(UsageError, match="already"):
        resume(path)


def test_an_opened_run_knows_the_steps_it_did(trained):
    run = trained("feed-forward")
    assert open_run(run.path).steps == run.steps


def test_a_run_without_a_checkpoint_cannot_be_resumed(trained, tmp_path):
    shutil.copytree(trained("dilemma").path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        resume(tmp_path / "run")


def test_a_run_on_code_of_the_users_is_told_it_again(trained):
    run = trained("doors")
    with pytest.raises(UsageError, match=r"only if you name it: give --environment .*:Doors"):
        open_run(run.path)
    opened = open_run(run.path, Doors)
    metrics = opened.evaluate(episodes=4)
    assert metrics["eval/return/agent/right"]["mean"] == 9.0
    assert run.evaluate(episodes=4) == metrics

    class Other(Doors):
        def spec(self):
            return coterie.EnvSpec(self.agents, (2, 2), (3, 2), time_limit=3)

    with pytest.raises(UsageError, match="observation sizes"):
        open_run(run.path, Other)
    extended = resume(run.path, steps=STEPS + 100, environment=Doors)
    assert extended.steps == STEPS + 100


# Policies --------------------------------------------------------------------------------------


def linear(arrays, name, network, x):
    return x @ arrays[f"{name}/weight"][network] + arrays[f"{name}/bias"][network]


def scores_by_hand(folder: Path, which: str, observations, hidden_states):
    """Every agent's scores and new memory, from the files alone, with NumPy alone."""
    about = json.loads((folder / "policy.json").read_text())
    arrays = load_file(folder / "seed-0" / f"{which}.safetensors")
    index, n = about["network_of_agent"], len(about["agents"])
    scores, after = [], []
    for i, network in enumerate(index):
        x = np.zeros(max(about["observation_sizes"]), np.float32)
        x[: len(observations[i])] = observations[i]
        if any(index.count(g) > 1 for g in index):
            x = np.concatenate([x, np.eye(n)[i] * (index.count(network) > 1)])
        for k in range(len(about["hidden"])):
            x = np.maximum(linear(arrays, f"networks/body/layers/{k}", network, x), 0)
        h = hidden_states[i]
        if about["recurrent"]:
            reset_x, update_x, new_x = np.split(
                linear(arrays, "networks/gru/inputs", network, x), 3
            )
            reset_h, update_h, new_h = np.split(
                linear(arrays, "networks/gru/hidden", network, h), 3
            )
            reset, update = (1 / (1 + np.exp(-v)) for v in (reset_x + reset_h, update_x + update_h))
            x = h = (1 - update) * np.tanh(new_x + reset * new_h) + update * h
        last = f"networks/body/layers/{len(about['hidden'])}"
        scores.append(linear(arrays, last, network, x)[: about["action_counts"][i]])
        after.append(h)
    return scores, after


@pytest.mark.parametrize(
    "kind",
    ["feed-forward", *(pytest.param(k, marks=pytest.mark.slow) for k in ("recurrent", "doors"))],
)
@pytest.mark.parametrize("which", ["best", "last"])
def test_a_policy_can_be_executed_with_numpy_alone(trained, kind, which):
    run = trained(kind)
    team = coterie.load(run.path, which=which)
    rng, hidden_state = np.random.default_rng(0), team.initial_hidden_state()
    by_hand = list(np.zeros((2, team.policy.hidden_size)))
    never = jnp.zeros(2, bool)
    for _ in range(4):
        observations = [rng.uniform(-1, 8, n).astype(np.float32) for n in team.observation_sizes]
        padded = jnp.stack([jnp.pad(o, (0, max(team.observation_sizes) - len(o)))
                            for o in observations])  # fmt: skip
        expected, _ = team.policy.step(hidden_state, padded, never)
        actions, hidden_state = team.act(observations, hidden_state)
        scores, by_hand = scores_by_hand(run.path / "policy", which, observations, by_hand)
        for i, own in enumerate(scores):
            np.testing.assert_allclose(own, expected[i, : len(own)], rtol=1e-4, atol=1e-4)
        assert actions == [int(np.argmax(own)) for own in scores]
        np.testing.assert_allclose(hidden_state, by_hand, rtol=1e-4, atol=1e-5)


def test_act_takes_lists_and_dicts(trained):
    team = coterie.load(trained("doors").path)
    left, right = [0.5, 1.0], [1.0]
    actions, _ = team.act([left, right], team.initial_hidden_state())
    assert all(isinstance(a, int) for a in actions)
    named, _ = team.act({"right": right, "left": left}, team.initial_hidden_state())
    assert named == dict(zip(("left", "right"), actions, strict=True))
    masks = {"left": np.arange(3) == 2 - actions[0] % 2, "right": [True, True]}
    forced, _ = team.act([left, right], team.initial_hidden_state(), masks)
    assert forced == [2 - actions[0] % 2, actions[1]]


def test_act_knows_who_is_no_longer_there(trained):
    """What an agent that is gone sees is 0, and its action None; the others act as before."""
    team = coterie.load(trained("doors").path)
    start = team.initial_hidden_state()
    (left, _), _ = team.act([[0.5, 1.0], [0.0]], start)
    assert team.act([[0.5, 1.0], None], start)[0] == [left, None]
    masks = {"left": np.arange(3) == (left + 1) % 3}
    given = {"left": [0.5, 1.0], "right": None}
    assert team.act(given, start, masks)[0] == {"left": (left + 1) % 3, "right": None}


@pytest.mark.parametrize(
    ("observations", "masks", "sentence"),
    [
        ([[0.5, 1.0]], None, "must hold one for each of left, right"),
        ([[0.5, 1.0], [1.0], [1.0]], None, "must hold one for each of left, right"),
        ([[0.5], [1.0]], None, r"agent left: .* a vector of 2 numbers; got shape \(1,\)"),
        ([[[0.5, 1.0]], [1.0]], None, r"agent left: .* a vector of 2 numbers; got shape \(1, 2\)"),
        ([[0.5, 1.0], "door"], None, "agent right: .* a vector of 1 numbers; got str"),
        ({"lift": [0.5, 1.0]}, None, r"there is no agent 'lift'; did you mean left\?"),
        (3.0, None, "must hold one for each"),
        ([[0.5, 1.0], [1.0]], [[True, True], [True, True]], "agent left: .* must hold 3 flags"),
        ([[0.5, 1.0], [1.0]], [[True] * 3], "action_masks must hold one for each"),
        ([[0.5, 1.0], [1.0]], {"left": [True] * 3}, "action_masks lack right"),
    ],
)  # fmt: skip
def test_act_refuses_what_does_not_fit(trained, observations, masks, sentence):
    team = coterie.load(trained("doors").path)
    with pytest.raises(UsageError, match=sentence):
        team.act(observations, team.initial_hidden_state(), masks)


@pytest.mark.slow
def test_stochastic_teams_draw_actions_with_a_key(trained):
    """Greedy without a key; with one, from the policy, each agent for itself, the legal ones."""
    team = coterie.load(trained("counterfactual").path)
    assert team.stochastic
    seen, hidden_state = np.ones((2, 7)), team.initial_hidden_state()
    scores, _ = team.policy.step(hidden_state, jnp.asarray(seen, jnp.float32), jnp.zeros(2, bool))
    greedy, _ = team.act(seen, hidden_state)
    assert greedy == np.asarray(scores).argmax(-1).tolist() == team.act(seen, hidden_state)[0]
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = np.array([team.act(seen, hidden_state, key=key)[0] for key in keys])
    assert drawn.tolist()[0] == team.act(seen, hidden_state, key=keys[0])[0]
    rates = np.stack([np.bincount(own, minlength=3) / 300 for own in drawn.T])
    np.testing.assert_allclose(rates, jax.nn.softmax(scores), atol=0.1)
    assert (drawn[:, 0] != drawn[:, 1]).any()
    masks = np.arange(3) >= np.array([[1], [2]])
    legal = np.array([team.act(seen, hidden_state, masks, key)[0] for key in keys[:50]])
    assert legal[:, 0].min() == 1
    assert (legal[:, 1] == 2).all()
    by_value = coterie.load(trained("dilemma").path)
    with pytest.raises(UsageError, match="nothing to sample"):
        by_value.act(np.ones((2, 1)), by_value.initial_hidden_state(), key=keys[0])


@pytest.mark.slow
def test_a_central_team_takes_and_gives_what_each_agent_sees_and_does(trained):
    """One policy sees all, in the agents' order, and its joint action is taken apart again."""
    run = trained("central")
    team = coterie.load(run.path, which="last")
    assert team.joint
    rng, hidden_state = np.random.default_rng(0), team.initial_hidden_state()
    assert hidden_state.shape == (1, 12)
    chosen = set()
    for k in range(20):
        seen = rng.uniform(-1, 8, (2, 9)).astype(np.float32)
        both = jnp.asarray(seen.reshape(1, -1))
        scores, expected = team.policy.step(hidden_state, both, jnp.zeros(1, bool))
        actions, hidden_state = team.act(seen, hidden_state)
        assert tuple(actions) == divmod(int(scores[0].argmax()), 6)
        np.testing.assert_allclose(hidden_state, expected, rtol=1e-5)
        named, _ = team.act(dict(zip(team.agents, seen, strict=True)), team.initial_hidden_state())
        assert list(named) == list(team.agents)
        masks = np.arange(6) == np.array([[k % 6], [5]])
        key = jax.random.key(k) if k % 2 else None
        assert team.act(seen, hidden_state, masks, key)[0] == [k % 6, 5]
        chosen.add(tuple(team.act(seen, hidden_state, key=jax.random.key(k))[0]))
    assert len(chosen) > 5


@pytest.mark.slow
def test_a_recurrent_team_remembers_its_own_observations_only(trained):
    team = coterie.load(trained("recurrent").path)
    first, other, now = (np.full((2, 9), value) for value in (1.0, 4.0, 2.0))
    _, after_first = team.act(first, team.initial_hidden_state())
    _, after_other = team.act(np.stack([first[0], other[1]]), team.initial_hidden_state())
    assert after_first.shape == (2, 12)
    assert not np.allclose(after_first, team.initial_hidden_state())
    np.testing.assert_array_equal(after_first[0], after_other[0])  # decentralised
    assert not np.allclose(after_first[1], after_other[1])
    _, hidden_state = team.act(now, after_first)
    _, fresh = team.act(now, team.initial_hidden_state())
    assert not np.allclose(hidden_state, fresh)
    assert coterie.load(trained("feed-forward").path).initial_hidden_state().shape == (2, 0)


def test_load_says_what_there_is(trained, tmp_path):
    run = trained("feed-forward").path
    with pytest.raises(UsageError, match=r"no best policy of seed 2; it has seeds \[0, 1\]"):
        coterie.load(run, seed=2)
    with pytest.raises(UsageError, match="best, last"):
        coterie.load(run, which="first")
    with pytest.raises(UsageError, match="holds no policy"):
        coterie.load(tmp_path)
    for content in ("{", "[]", '{"format": "coterie-policy"}', '{"format": "other"}'):
        (tmp_path / "policy").mkdir(exist_ok=True)
        (tmp_path / "policy" / "policy.json").write_text(content)
        with pytest.raises(UsageError, match=r"policy\.json is"):
            coterie.load(tmp_path)


# Evaluation ------------------------------------------------------------------------------------


def walker() -> PerAgent:
    """A team made by hand: walks to the only food and loads it, alone or together.

    Two ReLU layers: row and column distance by sign, then those and whether they sum to 1.
    """
    policy = PerAgent((0, 0), 9, 6, (4, 5), jax.random.key(0))
    first = np.zeros((11, 4), np.float32)  # food's row, column, level, own row, column, ..., ids
    first[[0, 3], 0] = 1, -1
    first[[0, 3], 1] = -1, 1
    first[[1, 4], 2] = 1, -1
    first[[1, 4], 3] = -1, 1
    second = np.eye(4, 5, dtype=np.float32)
    second[:, 4] = -1
    bias = np.array([0, 0, 0, 0, 1.5], np.float32)
    third = np.zeros((5, 6), np.float32)  # none, north, south, west, east, load
    third[[1, 0, 3, 2], [1, 2, 3, 4]] = 1
    third[4, 5] = 20
    layers = policy.networks.body.layers
    weights = [(first, np.zeros(4, np.float32)), (second, bias), (third, np.zeros(6, np.float32))]
    for k, (weight, offset) in enumerate(weights):
        assert layers[k].weight.shape[1:] == weight.shape
        policy = eqx.tree_at(
            lambda p, k=k: (p.networks.body.layers[k].weight, p.networks.body.layers[k].bias),
            policy,
            (jnp.asarray(weight)[None], jnp.asarray(offset)[None]),
        )
    return policy


def test_a_team_earns_the_same_here_and_in_the_original():
    policies = {"best": jax.tree.map(lambda x: x[None], walker())}
    run = Run({}, Game(coterie.make(FORAGING)), policies, None, 0, algorithm=coterie.VDN())
    ours = run.evaluate(2_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium wonders about several agents
        theirs = run.evaluate(200, environment="gymnasium:lbforaging:Foraging-5x5-2p-1f-v3", seed=1)
    for name in ("eval/return/team_sum", "eval/return/agent/agent_0", "eval/length"):
        here, there = ours[name]["mean"], theirs[name]["mean"]
        width = 4 * (0.5 if "return" in name else 25.0) / np.sqrt(200)
        assert abs(here - there) < width, (name, here, there)
    low, high = ours["eval/return/team_sum"]["ci95_episodes"]
    assert 0.3 < low < ours["eval/return/team_sum"]["mean"] < high < 1
    assert high - low < 0.06


def test_what_comes_after_an_end_is_not_counted():
    policy = PerAgent((0, 1), 1, 2, (4,), jax.random.key(0))
    policies = {"best": jax.tree.map(lambda x: x[None], policy)}
    run = Run({}, Game(Lottery()), policies, None, 0, algorithm=coterie.VDN())
    metrics = run.evaluate(500, which="best")
    mean_length = metrics["eval/length"]["mean"]
    assert metrics["eval/return/agent/left"]["mean"] == pytest.approx(mean_length, rel=1e-12)
    assert 1.7 < mean_length < 2.3


def test_evaluation_is_summarised_over_seeds_and_reproducible(trained):
    run = trained("feed-forward")
    metrics = run.evaluate(episodes=16, seed=3)
    assert metrics == run.evaluate(episodes=16, seed=3)
    for metric in metrics.values():
        assert len(metric["per_seed"]) == 2
        assert metric["mean"] == pytest.approx(np.mean(metric["per_seed"]))
        assert metric["ci95"] is not None
    total = metrics["eval/return/team_sum"]["mean"]
    assert total == pytest.approx(2 * metrics["eval/return/team_mean"]["mean"])


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ("lbf/8x8-2p-3f", r"the team has observation sizes \[9, 9\], but .* has \[15, 15\]"),
        ("gymnasium:lbforaging:Foraging-8x8-2p-3f-v3", "the team has observation sizes"),
        ("gymnasium:lbforaging:Foraging-5x5-2p-1f-v9", "Gymnasium has no environment"),
        ("lbf/five", "not the name of a task"),
        ("nowhere.to:find", "there is no module nowhere"),
        ("json:loads", "cannot make an environment"),
    ],
)
def test_evaluation_elsewhere_needs_a_place_that_fits(trained, environment, sentence):
    with pytest.raises(UsageError, match=sentence):
        trained("feed-forward").evaluate(4, environment=environment)


@pytest.mark.parametrize("episodes", [0, -1, 10**9, 10**11])
def test_evaluation_refuses_impossible_numbers(trained, episodes):
    with pytest.raises(UsageError, match=r"a whole number from 1 to|GB of memory are free"):
        trained("feed-forward").evaluate(episodes)


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "environment", "more", "sentence"),
    [
        (VDN(), "matrix/chicken", {}, "vdn needs a common reward.* --reward sum or --reward mean"),
        (QMIX(), "matrix/chicken", {"reward": "individual"}, "qmix needs a common reward"),
        (QMIX(), Doors, {"central": "state", "reward": "sum"}, "offers no state for z"),
        (VDN(), "gymnasium:lbforaging:Foraging-5x5-2p-1f-v3", {}, "vdn needs a common reward"),
        (VDN(), dict, {}, "builtins:dict: a dict is no environment"),
        (VDN(), 3, {}, "3 is no environment"),
        (VDN(), "matrix/climbing", {"options": {"round": 3}}, "did you mean rounds"),
        (
            VDN(),
            "matrix/climbing",
            {"steps": 0},
            "steps must be a whole number from 1",
        ),
        (VDN(), "matrix/climbing", {"seeds": 0}, "seeds must be a whole number from 1 to 1e6"),
        (VDN(), "matrix/climbing", {"evaluations": 0}, "evaluations must be a whole number"),
        (VDN(), "matrix/climbing", {"final_episodes": -1}, "final_episodes must be a whole"),
        (VDN(buffer_size=10**9), "matrix/climbing", {"seeds": 9**4}, r"needs [\d,]+\.\d GB"),
        (VDN(hidden=(10**6, 10**6)), "matrix/climbing", {}, r"needs [\d,]+\.\d GB"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, algorithm, environment, more, sentence):
    events = []
    options = {"steps": 40, "report": lambda event, facts: events.append(event)} | more
    with pytest.raises(UsageError, match=sentence):
        train(algorithm, environment, out=tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())
    assert not events


@pytest.mark.parametrize("existing", ["folder", "run", "file", "link"])
def test_nothing_is_ever_overwritten(tmp_path, existing):
    out = tmp_path / "run"
    if existing in ("folder", "run"):
        out.mkdir()
        (out / "notes.txt").write_text("precious")
    if existing == "run":
        (out / "config.json").write_text("{}")
    if existing == "file":
        out.write_text("precious")
    if existing == "link":
        out.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"nothing was overwritten"):
        train(VDN(), "matrix/climbing", 40, out=out)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UsageError, match="a part of this path is a file"):
        train(VDN(), "matrix/climbing", 40, out=tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "damaged: not JSON"),
        ("[]", "not a JSON object"),
        ('{"algorithm": "vdn", "seeds": 1}', "differs from its digest"),
        (lambda c: {"algorithm": "vdn", "seeds": 1}, "not that of a run: it needs settings"),
        (lambda c: c | {"seeds": True}, "seeds must be a whole number from 1 to 1e6; got True"),
        (lambda c: c | {"seeds": 10**10}, "seeds must be .*; got 10000000000"),
        (lambda c: c | {"steps": 0}, "not that of a run: steps must be .*; got 0"),
        (lambda c: c | {"lanes": 7}, "lanes is 7"),
        (lambda c: c | {"reward": "all"}, "reward must be individual, sum or mean; got 'all'"),
        (lambda c: c | {"seeds": "two"}, "seeds must be .*; got 'two'"),
        (lambda c: c | {"algorithm": "dqn"}, "no algorithm 'dqn'"),
        (lambda c: c | {"environment": "lbf/nine"}, "not the name of a task"),
        (lambda c: c | {"settings": c["settings"] | {"gama": 1}}, "no setting 'gama'"),
        (lambda c: c | {"settings": c["settings"] | {"lr": "fast"}}, "config.json is damaged"),
        (
            lambda c: c | {"settings": c["settings"] | {"lr": -1.0}},
            "damaged: lr must be a number",
        ),
    ],
)
def test_broken_configurations_are_named(trained, tmp_path, content, sentence):
    run = tmp_path / "run"
    run.mkdir()
    if callable(content):
        config = json.loads((trained("feed-forward").path / "config.json").read_text())
        content = json.dumps(seal(content(config)))
    (run / "config.json").write_text(content)
    for read in (open_run, resume):
        with pytest.raises(UsageError, match=sentence):
            read(run)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"update_ratio": 1e-9}, "update_ratio must be a number from 1e-05 to 1,000"),
        ({"lr": float("inf")}, "lr must be a number above 0, at most 1e6; got inf"),
        ({"lr": float("nan")}, "lr must be a number above 0, at most 1e6; got nan"),
        ({"gamma": 1.1}, r"gamma must be a number from 0 to 1; got 1\.1"),
        ({"epsilon_steps": 0}, "epsilon_steps must be a whole number from 1 to 1e15 or None"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be a number above 0, at most 1e15 or None"),
        ({"learning_starts": -1}, "learning_starts must be a whole number from 0 to 1e15"),
        ({"target_tau": 0.0}, "target_tau must be a number above 0, at most 1 or None"),
        ({"hidden": ()}, "hidden must be 1 to 64 values, each a whole number from 1 to 1e6"),
        ({"buffer_size": 3}, "smaller than one rollout"),
    ],
)
def test_settings_that_make_no_sense_fail_at_construction(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        VDN(**settings)


def test_more_evaluations_than_rollouts_are_not_counted_out():
    """Counting them one by one would last until the test's own time-out."""
    marks = loop.Loop._marks(types.SimpleNamespace(total=5), 10**12)  # type: ignore[arg-type]
    assert marks == {1, 2, 3, 4, 5}


def test_available_memory_unknown_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    run = start("dilemma", None, steps=8, final_episodes=0)
    assert run.steps == 8
