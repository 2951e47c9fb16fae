"""Words and what they mean: counted, measured, and taken away from those who listen."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coterie
from coterie.analysis.messages import Channel, channels, codes, mutual_information
from coterie.errors import UsageError


@pytest.mark.parametrize(
    ("counts", "bits"),
    [
        ([[5, 0, 0], [0, 5, 0], [0, 0, 5]], math.log2(3)),  # three words
        ([[0, 9, 0], [9, 0, 0], [9, 0, 0]], math.log2(3) - 2 / 3),  # two words
        ([[1, 2], [2, 4]], 0.0),  # independent
        ([[3, 1], [1, 3]], 1 + 0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)),
        ([[0, 0], [0, 0]], 0.0),
    ],
)
def test_mutual_information_by_hand(counts, bits):
    assert mutual_information(counts) == pytest.approx(bits)


class Tell(coterie.Environment):
    """The speaker sees a secret and says a word; next the listener, who heard it, guesses.

    With ``heard`` off the listener is shown the secret itself and hears nothing.
    """

    agents = ("speaker", "listener")

    def __init__(self, heard: bool = True):
        self.heard = heard

    def spec(self):
        return coterie.EnvSpec(
            agents=self.agents, observation_sizes=(3, 4), action_counts=(3, 3), time_limit=2,
            reward="mean",
        )  # fmt: skip

    def reset(self, key):
        state = (jax.random.randint(key, (), 0, 3), jnp.full((), -1), jnp.zeros((), jnp.int32))
        return state, self.show(state, 0.0)

    def step(self, key, state, actions):
        secret, word, t = state
        reward = jnp.where(t == 1, actions[1] == secret, 0).astype(float)
        state = (secret, jnp.where(t == 0, actions[0], word), t + 1)
        return state, self.show(state, reward)

    def show(self, state, reward):
        secret, word, t = state
        heard = jnp.append(jax.nn.one_hot(word if self.heard else secret, 3), t)
        return coterie.TimeStep(
            observations=(jax.nn.one_hot(secret, 3), heard), rewards=jnp.full(2, reward),
            terminated=t >= 2, truncated=jnp.array(False),
        )  # fmt: skip


CHANNEL = Channel(
    speaker=0,
    words=("a", "b", "c"),
    meanings=("0", "1", "2"),
    word=lambda action: action,
    say=lambda action, word: word,
    meaning=lambda state: state[0],
)


def trained(env, steps):
    algorithm = coterie.IPPO(environments=64, rollout_steps=8, lr=1e-2, hidden=(16,), gamma=0.9)
    return coterie.train(algorithm, env, steps=steps, evaluations=1, final_episodes=0)


@pytest.mark.slow
def test_a_team_that_talks_loses_by_other_words():
    (code,) = codes(trained(Tell(), 60_000), CHANNEL)
    assert code.speaker == "speaker"
    assert code.returns["said"] > 0.9
    assert code.returns["shuffled"] < 0.5
    assert code.returns["silenced"] < 0.5
    assert code.bits > 0.3  # the second word of an episode is nobody's business
    assert set(code.book.values()) <= {"a", "b", "c"}
    assert np.sum(code.counts) == 2 * 320
    assert json.loads(json.dumps(code.to_dict()))["bits"] == code.bits


@pytest.mark.slow
def test_a_team_that_needs_no_words_loses_nothing_by_others():
    (code,) = codes(trained(Tell(heard=False), 60_000), CHANNEL)
    assert code.returns["said"] > 0.9
    assert code.returns["shuffled"] == pytest.approx(code.returns["said"], abs=0.05)
    assert code.returns["silenced"] == pytest.approx(code.returns["said"], abs=0.05)


@pytest.mark.slow
def test_an_untrained_team_says_nothing():
    (code,) = codes(trained(Tell(), 512), CHANNEL)
    assert code.bits < 0.1
    assert code.returns["said"] == pytest.approx(code.returns["shuffled"], abs=0.1)


def test_channels_of_particle_scenarios():
    (one,) = channels(coterie.make("mpe/simple-speaker-listener"))
    assert (one.speaker, len(one.words), len(one.meanings)) == (0, 3, 3)
    first, second = channels(coterie.make("mpe/simple-reference"))
    assert (first.speaker, second.speaker, len(first.words)) == (0, 1, 10)
    for action in range(50):
        word = first.word(jnp.array(action))
        assert first.say(jnp.array(action), word) == action
    assert first.word(first.say(jnp.array(13), jnp.array(7))) == 7
    with pytest.raises(UsageError, match="with goals"):
        channels(coterie.make("mpe/simple-spread"))
    with pytest.raises(UsageError, match="only particle scenarios"):
        channels(coterie.make("matrix/climbing"))
