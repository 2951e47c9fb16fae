"""What is no environment is refused by its real reason first, and by what to give instead."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple

from coterie import UsageError, envs
from coterie.cli import entry as cli
from coterie.runs.environments import open_environment
from coterie.storage.files import seal

BOX, TWO = Box(-1, 1, (2,)), Discrete(2)


class Alone(gymnasium.Env):
    def __init__(self, seen: Any = BOX, action: Any = TWO):
        self.observation_space, self.action_space = seen, action


class JaxMARLLike:
    agents, num_agents = ("a", "b"), 2

    @partial(jax.jit, static_argnums=(0,))
    def reset(self, key): ...

    @partial(jax.jit, static_argnums=(0,))
    def step(self, key, state, actions, reset_state=None): ...

    def observation_space(self, agent): ...

    def action_space(self, agent): ...


class GymnaxLike:
    def reset(self, key, params=None): ...

    def step(self, key, state, action, params=None): ...

    def action_space(self, params=None): ...

    def observation_space(self, params=None): ...


class BraxLike:
    observation_size, action_size = 4, 2

    def reset(self, rng): ...

    def step(self, state, action): ...


class JumanjiLike:
    observation_spec, action_spec = object(), object()

    def reset(self, key): ...

    def step(self, state, action): ...


class PgxLike:
    num_players = 2

    def init(self, key): ...

    def step(self, state, action, key=None): ...


class StableVector:
    """As Stable-Baselines3's and SuperSuit's."""

    num_envs, observation_space, action_space = 4, BOX, TWO

    def reset(self): ...

    def step(self, actions): ...


class Nothing: ...


def needs(size):
    return size


JAX = "is a JAX environment of another library.*wrap it in a class of coterie.Environment"
REFUSED = {
    "dictionaries": (partial(Alone, Dict(a=BOX), Dict(a=TWO)), "^.*Alone has a Dict for its act"),
    "seen in a list": (partial(Alone, [BOX, BOX]), "space is Discrete.*, not a Tuple or a list"),
    "vector": (partial(gymnasium.make_vec, "CartPole-v1", num_envs=3), "a vector of 3 environm"),
    "stable vector": (StableVector, "StableVector is a vector of 4 environments"),
    "none": (lambda: None, "None is no environment.* return"),
    "class": (lambda: Alone, r"Alone is a class, not an environment: make one of it, Alone\(\)"),
    "list": (lambda: [Alone()], "a list is no environment: give one"),
    "nothing": (Nothing, "Nothing is neither a PettingZoo environment"),
} | {
    kind.__name__: (kind, f"{kind.__name__} {JAX}")
    for kind in (JaxMARLLike, GymnaxLike, BraxLike, JumanjiLike, PgxLike)
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_whatever_is_no_environment_is_refused_by_its_reason(what):
    make, sentence = REFUSED[what]
    with pytest.raises(UsageError, match=sentence):
        open_environment(make, {})
    made = make()
    if not callable(made):  # the thing itself, without the name of what made it
        with pytest.raises(UsageError, match=sentence.removeprefix("^.*Alone: ")) as refused:
            open_environment(made, {})
        assert not str(refused.value).startswith(("tests", "test_refusals", "gymnasium."))


@pytest.mark.parametrize(
    ("thing", "sentence"),
    [
        (3, "^3 is no environment"),
        (None, "^None is no environment"),
        ([1], "^a list is no environment"),
        (Path("a/my_env.py"), r"my_env.py is a file.* my_env:FUNCTION"),
        (needs, r"^needs\(size\) cannot be called without more arguments.*'size'"),
        (partial(Alone, action=Dict(a=TWO)), "a MultiDiscrete or a Box if it is one agent's"),
        ("", "the name of the environment is empty"),
        ("my_env.py", "^my_env.py is a file.* my_env:FUNCTION, where"),
        ("./deep/my_env.py:make", "^./deep/my_env.py is a file.* my_env:make$"),
        ("table.json", "name it matrix/table.json"),
        ("gymnasum:CartPole-v1", "did you mean gymnasium:CartPole-v1"),
        ("CartPole-v1", "is an environment of Gymnasium: name it gymnasium:CartPole-v1"),
        ("petingzoo:x.y", "did you mean pettingzoo:x.y"),
        ("lfb/8x8-2p-3f", "did you mean lbf/8x8-2p-3f"),
    ],
)
def test_what_a_user_may_give_by_mistake(thing, sentence):
    with pytest.raises(UsageError, match=sentence):
        open_environment(thing, {})


def test_what_may_be_an_environment_is_not_refused():
    env, _ = open_environment(lambda: Alone(Tuple((BOX, BOX)), Tuple((TWO, TWO))), {})
    assert env.spec().n_agents == 2
    for seen, action in ((BOX, TWO), (Tuple((BOX, BOX)), TWO), (Dict(a=BOX), MultiDiscrete([2]))):
        env, _ = open_environment(partial(Alone, seen, action), {})
        assert env.spec().agents == ("agent_0",)


HUGE = ("99999999999999999999", "9" * 5000)


@pytest.mark.parametrize("number", HUGE)
def test_numbers_beyond_64_bits_in_names(number):
    lbf = ("{}x8-2p-1f", "8x{}-2p-1f", "8x8-{}p-1f", "8x8-2p-{}f", "8x8-2p-1f-{}s", "8x8-2p-1f-{}")
    others = ("matrix/penalty-1e{}", "matrix/penalty--{}e99", "mpe/simple-spread-{}",
              "gymnasium:CartPole-v{}")  # fmt: skip
    for name in (*(f"lbf/{variant}" for variant in lbf), *others):
        with pytest.raises(UsageError) as refused:
            open_environment(name.format(number), {})
        assert "\n" not in str(refused.value)
    assert envs.make("lbf/8x8-2p-1f-2s").__dict__["sight"] == 2


@pytest.mark.parametrize("value", ["1e30", "1e400", "-1e30", *HUGE, "nan"])
def test_numbers_beyond_64_bits_on_the_command_line(value, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = ("watch x --fps {}", "watch x --seed {}", "watch x --episodes {}",
              "watch x --episode-seed {}", "evaluate x --episodes {}",
              "lecture nothing --seed {}")  # fmt: skip
    for line in wanted:
        assert cli.main(line.format(value).split()) == 2, line
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"coterie: [^\n]+\n", err), line
    assert not list(tmp_path.iterdir())


def test_watching_a_run_on_a_python_environment_asks_for_the_environment(tmp_path, capsys):
    config = {
        "algorithm": "vdn", "settings": {}, "environment": "pettingzoo:x.y", "reward": "mean",
        "environment_options": {}, "central": "none", "steps": 1, "seeds": 1, "seed": 0,
        "evaluations": 1, "evaluation_episodes": 1, "final_episodes": 0, "sizes": {}, "lanes": 1,
        "hosting": {"workers": 0},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(seal(config)))
    assert cli.main(["watch", str(tmp_path)]) == 2
    _, err = capsys.readouterr()
    assert "give --environment pettingzoo:x.y" in err
    assert np.size(err.splitlines()) == 1
