"""Playing episodes without learning, compiled; what every reported return is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from coterie.errors import UsageError
from coterie.networks.per_agent import PerAgent
from coterie.policies.acting import act, noise
from coterie.types import Actions, PRNGKey
from coterie.views.game import Game

INFO = "/info/"
"""Between a metric's first part and the name under which environments report it."""
NO_LIMIT_STEPS = 10_000
"""Episodes of a game without a time limit are cut here when they are evaluated."""


class Played(NamedTuple):
    """Episodes of one or, with a leading axis S, of several teams.

    Attributes:
        returns: [E, R] of the environment's own rewards.
        lengths: [E] in steps.
        info: by name [S] the mean of what environments reported under it, over the episodes that
            did; NaN where none of a team's did.
    """

    returns: Any
    lengths: Any
    info: dict[str, Any]


Info = dict[str, Float[Array, " E"]]
"""What the environment reported at the end of each episode, by name."""


def play(
    game: Game,
    policy: PerAgent,
    key: PRNGKey,
    episodes: int,
    sampled: Bool[Array, " E"] | None = None,
) -> tuple[Float[Array, "E R"], Float[Array, " E"], Info]:
    """Episodes from fresh starts: returns of the environment's own rewards, lengths, and reports.

    Args:
        sampled: episodes whose actions are drawn from the policy; the others are greedy.
    """
    return play_watched(game, policy, key, episodes, sampled)[:3]


Watch = Callable[..., tuple[Actions, Any]]
"""(t, state [E], actions [E, N], live [E], notes) -> the actions to be taken, the new notes."""


def play_watched(
    game: Game,
    policy: PerAgent,
    key: PRNGKey,
    episodes: int,
    sampled: Bool[Array, " E"] | None = None,
    watch: Watch | None = None,
    notes: Any = (),
) -> tuple[Float[Array, "E R"], Float[Array, " E"], Info, Any]:
    """``play``, with a function that sees every step and may change what is done in it.

    Args:
        watch: called before each step with the states and the actions that the policy chose.
        notes: what it keeps at first; an array or a tree of them.

    Returns: returns, lengths, reports, and the notes in the end.
    """
    reset_key, step_key, draw_key = jax.random.split(key, 3)
    state, shown = jax.vmap(game.reset)(jax.random.split(reset_key, episodes))
    n = game.spec.n_agents
    limit = game.spec.time_limit or NO_LIMIT_STEPS

    def going(carry: Any) -> Array:
        t, over = carry[0], carry[4]
        return (t < limit) & ~jnp.all(over)

    def step(carry: Any) -> Any:
        t, state, shown, hidden_state, over, returns, lengths, info, notes = carry
        drawn = None
        if sampled is not None:
            drawn = noise(jax.random.fold_in(draw_key, t), (episodes,), n, policy.vectors)
        actions, hidden_state, _ = act(
            policy, hidden_state, shown.observations, shown.action_mask, drawn, sampled=sampled
        )
        if watch is not None:
            actions, notes = watch(t, state, actions, ~over, notes)
        keys = jax.random.split(jax.random.fold_in(step_key, t), episodes)
        state, shown = jax.vmap(game.step)(keys, state, actions)
        live = ~over
        returns = returns + jnp.where(live[:, None], shown.rewards, 0.0)
        over = over | shown.terminated | shown.truncated
        info = {name: jnp.where(live, x, info[name]) for name, x in (shown.info or {}).items()}
        following = (t + 1, state, shown.onward(), hidden_state, over)
        return (*following, returns, lengths + live, info, notes)

    hidden_state = policy.initial_hidden_state(episodes)
    start = (
        0,
        state,
        shown,
        hidden_state,
        jnp.zeros(episodes, bool),
        jnp.zeros((episodes, game.players.n_agents)),
        jnp.zeros(episodes),
        {name: jnp.zeros(episodes) for name in game.reports},
        notes,
    )
    *_, returns, lengths, info, notes = jax.lax.while_loop(going, step, start)
    return returns, lengths, info, notes


def play_both(
    game: Game, policy: PerAgent, key: PRNGKey, episodes: int, stochastic: bool
) -> dict[str, Played]:
    """Greedy episodes as ``eval`` and, if the policy is stochastic, as many ``eval_sampled``."""
    if not stochastic:
        return {"eval": _played(*play(game, policy, key, episodes))}
    sampled = jnp.arange(2 * episodes) >= episodes
    both = play(game, policy, key, 2 * episodes, sampled)
    parts = {"eval": slice(None, episodes), "eval_sampled": slice(episodes, None)}
    return {
        prefix: _played(*jax.tree.map(lambda x, part=part: x[part], both))
        for prefix, part in parts.items()
    }


def _played(returns: Float[Array, "E R"], lengths: Float[Array, " E"], info: Info) -> Played:
    """With the mean of each report over the episodes where it is finite; NaN where it never is."""
    means = {name: jnp.nanmean(jnp.where(jnp.isfinite(x), x, jnp.nan)) for name, x in info.items()}
    return Played(returns, lengths, means)


FIXED = ("return/team_sum", "return/team_mean", "length")
"""Metrics of every game's episodes, without a prefix."""


def is_played(metric: str) -> bool:
    """Whether episodes of some game have this metric, without a prefix (``played_metrics``)."""
    named = (metric.removeprefix(head) for head in ("return/agent/", "info/"))
    return metric in FIXED or any(name not in ("", metric) for name in named)


def return_metrics(
    prefix: str, agents: tuple[str, ...], returns: Any, lengths: Any
) -> dict[str, float]:
    """Mean returns and length under their fixed names.

    Args:
        returns: [E, N] or already averaged [N]; lengths: [E] or a number.
    """
    mean = np.asarray(returns, np.float64).reshape(-1, len(agents)).mean(0)
    if not np.all(np.isfinite(mean)):
        raise UsageError(f"returns are not finite: {dict(zip(agents, mean.tolist(), strict=True))}")
    metrics = {f"{prefix}/return/agent/{a}": float(r) for a, r in zip(agents, mean, strict=True)}
    metrics[f"{prefix}/return/team_sum"] = float(mean.sum())
    metrics[f"{prefix}/return/team_mean"] = float(mean.mean())
    metrics[f"{prefix}/length"] = float(np.mean(lengths, dtype=np.float64))
    return metrics


def played_metrics(
    prefix: str, agents: tuple[str, ...], played: Played, team: int
) -> dict[str, float]:
    """What one of several teams' episodes came to: ``return_metrics`` and what was reported."""
    metrics = return_metrics(prefix, agents, played.returns[team], played.lengths[team])
    return metrics | info_metrics(prefix, played.info, team)


def info_metrics(prefix: str, info: Mapping[str, Any], team: int) -> dict[str, float]:
    """Means [S] of what environments reported, of those teams' episodes that reported it."""
    own = {f"{prefix}{INFO}{name}": float(means[team]) for name, means in info.items()}
    return {name: mean for name, mean in own.items() if np.isfinite(mean)}
