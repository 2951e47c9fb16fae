"""What agents say to each other: which word for which meaning, and whether anybody listens.

A channel is an action that others can hear (the speaker's word) and something only its sender knows
(the goal). A team communicates if words tell of the meaning *and* the return falls when each word
is replaced by one said elsewhere: the first alone is talking to nobody, the second alone is a
listener that leans on noise.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coterie.envs.base import Environment
from coterie.envs.mpe.particles import Particles
from coterie.envs.mpe.physics import ACTIONS
from coterie.errors import UsageError
from coterie.networks.per_agent import PerAgent
from coterie.runs.run import Run
from coterie.training.evaluate import play_watched
from coterie.types import PRNGKey
from coterie.views.game import Game

EPISODES = 320
Manner = Literal["said", "shuffled", "silenced"]


@dataclass(frozen=True)
class Channel:
    """Words of one agent, and what they could be about.

    Attributes:
        speaker: the sender's place on the agent axis.
        words, meanings: names of the W words and of the M meanings.
        word: the word 0 .. W-1 in the speaker's action.
        say: the speaker's action with another word in it.
        meaning: what the speaker knows and others do not, 0 .. M-1, read from one environment's
            state before the step in which the word is said.
    """

    speaker: int
    words: tuple[str, ...]
    meanings: tuple[str, ...]
    word: Callable[[Int[Array, "*S"]], Int[Array, "*S"]]
    say: Callable[[Int[Array, "*S"], Int[Array, "*S"]], Int[Array, "*S"]]
    meaning: Callable[[Any], Int[Array, ""]]


@dataclass(frozen=True)
class Code:
    """How one team uses a channel.

    Attributes:
        speaker: the sender's name.
        words, meanings: names.
        counts: [M, W] how often each word was said for each meaning.
        bits: mutual information of word and meaning; at most log2(min(M, W)).
        book: for each meaning its most frequent word.
        returns: mean return per agent: ``said`` as it is, ``shuffled`` with each word replaced by
            one that was said in another episode, ``silenced`` with the most frequent word always.
        seed: of the run.
    """

    speaker: str
    words: tuple[str, ...]
    meanings: tuple[str, ...]
    counts: list[list[int]]
    bits: float
    book: dict[str, str]
    returns: dict[str, float]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The same in what JSON can hold."""
        return dataclasses.asdict(self)


def channels(env: Any) -> tuple[Channel, ...]:
    """The channels of a particle scenario in which somebody speaks of a goal.

    Raises:
        UsageError: nobody does, or the environment is another: describe a ``Channel`` yourself.
    """
    if not isinstance(env, Particles) or not env.world.goals:
        raise UsageError(
            "only particle scenarios with goals say by themselves who speaks of what; "
            "give channels=[coterie.analysis.messages.Channel(...)]"
        )
    world = env.world
    speakers = [i for i, body in enumerate(world.agents.values()) if body.speaks]
    if not speakers:
        raise UsageError(f"nobody speaks in {type(env).__name__}")
    if env.continuous_actions:
        raise UsageError("messages are counted where agents say one word, not all more or less")
    return tuple(_spoken(env, i, k % world.goals) for k, i in enumerate(speakers))


def _spoken(env: Particles, speaker: int, goal: int) -> Channel:
    """Actions are words, or word · moves + move where the speaker moves too."""
    world = env.world
    body = list(world.agents.values())[speaker]
    moves = len(ACTIONS) if body.push else 1
    return Channel(
        speaker=speaker,
        words=tuple(f"word {k}" for k in range(world.words)),
        meanings=tuple(f"landmark {k}" for k in range(world.landmarks)),
        word=lambda action: action // moves,
        say=lambda action, word: word * moves + action % moves,
        meaning=lambda state: state.goals[goal],
    )


def codes(
    run: Run,
    channel: Channel | None = None,
    *,
    which: str = "last",
    greedy: bool | None = None,
    episodes: int = EPISODES,
    seed: int = 0,
) -> list[Code]:
    """The code of each seed's team.

    Args:
        channel: who speaks of what; the first of ``channels`` unless given.
        which: the last or the best policies.
        greedy: play greedily; stochastic policies are sampled unless asked.
        episodes: played in each of the three manners.
        seed: of the episodes.

    Raises:
        UsageError: the environment is not compiled, or has no channel.
    """
    game = run.game
    if not isinstance(game.env, Environment):
        raise UsageError("messages can be looked at in JAX environments only")
    channel = channel or channels(game.env)[0]
    greedy = not run.stochastic if greedy is None else greedy
    play = jax.jit(
        functools.partial(_play, game, channel, episodes=episodes, greedy=greedy),
        static_argnames="manner",
    )
    found = []
    for k in range(run.config["seeds"]):
        policy = jax.tree.map(lambda x, k=k: x[k], run.policies[which])
        key = jax.random.fold_in(jax.random.key(seed), k)
        returns, counts = play(policy, key, manner="said")
        counts = np.asarray(counts, np.int64)
        most = int(counts.sum(axis=0).argmax())
        heard = {
            "said": returns,
            "shuffled": play(policy, key, manner="shuffled")[0],
            "silenced": play(policy, key, always=most, manner="silenced")[0],
        }
        found.append(_code(run, channel, counts, heard, k))
    return found


def _code(run: Run, channel: Channel, counts: np.ndarray, heard: dict[str, Any], k: int) -> Code:
    rows = zip(channel.meanings, counts, strict=True)
    spoken = {name: channel.words[int(row.argmax())] for name, row in rows if row.any()}
    return Code(
        speaker=run.game.players.agents[channel.speaker],
        words=channel.words,
        meanings=channel.meanings,
        counts=counts.tolist(),
        bits=mutual_information(counts),
        book=spoken,
        returns={name: float(np.mean(x)) for name, x in heard.items()},
        seed=run.config["seed"] + k,
    )


def _play(
    game: Game,
    channel: Channel,
    policy: PerAgent,
    key: PRNGKey,
    always: Int[Array, ""] | int = 0,
    *,
    episodes: int,
    greedy: bool,
    manner: Manner,
) -> tuple[Float[Array, "E R"], Int[Array, "M W"]]:
    """Returns of episodes in which words are heard as they are said, or otherwise; the counts."""
    play_key, shuffle_key = jax.random.split(key)
    i, shape = channel.speaker, (len(channel.meanings), len(channel.words))

    def watch(t, state, actions, live, counts):
        own = actions[:, i]
        word, meaning = channel.word(own), jax.vmap(channel.meaning)(state.env)
        counts = counts.at[meaning, word].add(live.astype(jnp.int32))
        if manner == "shuffled":
            apart = jax.random.randint(jax.random.fold_in(shuffle_key, t), (), 1, episodes)
            word = jnp.roll(word, apart)
        if manner == "silenced":
            word = jnp.full_like(word, always)
        return actions.at[:, i].set(channel.say(own, word)), counts

    sampled = None if greedy else jnp.ones(episodes, bool)
    returns, *_, counts = play_watched(
        game, policy, play_key, episodes, sampled, watch, jnp.zeros(shape, jnp.int32)
    )
    return returns, counts


def mutual_information(counts: Sequence[Sequence[int]] | np.ndarray) -> float:
    """I(meaning; word) in bits, of counts [M, W]: Σ p(m, w) log2 p(m, w) / (p(m) p(w))."""
    joint = np.asarray(counts, np.float64)
    joint = joint / max(joint.sum(), 1.0)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    said = joint > 0
    return float(max(np.sum(joint[said] * np.log2(joint[said] / apart[said])), 0.0))
