"""Networks: perceptrons, histories, one network per agent or shared ones, the QMIX mixer.

Layers act on the last axis and broadcast over all others. No layer is initialised by a QR
factorisation: several batched ones in one jitted function can deadlock jaxlib on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from coterie.errors import UsageError
from coterie.former import former_attribute
from coterie.networks.layers import History, Linear
from coterie.networks.observation_statistics import ObservationStatistics
from coterie.networks.own import HeadSetting, OwnHead, OwnTorso
from coterie.networks.torsos import Torso, TorsoSetting, make_torso
from coterie.ops.action_vectors import ActionVectors, at_least
from coterie.ops.observations import joined
from coterie.spec import EnvSpec, ObservationSpace
from coterie.types import PRNGKey

Groups = tuple[str, ...]
"""Agents that share parameters, each group as ``name,name``; agents not named keep their own."""


class PerAgent(eqx.Module):
    """One history network per agent, one for all, or one per group of agents.

    Attributes:
        networks: the stacked networks [G, ...].
        index: which network each agent uses; a static routing map.
        identify: agents that share a network append their one-hot id to the observation.
        log_std: [G, D] log σ of the numbers in an action, which follow a network's own outputs,
            there not below its floor.
        vectors: how the outputs are read where actions are vectors.
        statistics: by which observations are normalised; None where they are taken as they are,
            so also where learners give networks what is normalised already.
    """

    networks: History
    log_std: Float[Array, "G D"] | None
    index: tuple[int, ...] = eqx.field(static=True)
    identify: tuple[bool, ...] = eqx.field(static=True)
    vectors: ActionVectors | None = eqx.field(static=True)
    statistics: ObservationStatistics | None

    def __init__(
        self,
        index: tuple[int, ...],
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        key: PRNGKey,
        recurrent: bool = False,
        activation: str = "relu",
        last: int | float = 1.0,
        gain: int | float | None = None,
        vectors: ActionVectors | None = None,
        std: float | int = 1.0,
        space: ObservationSpace | None = None,
        torso: TorsoSetting = "auto",
        layer_norm: bool = False,
        statistics: ObservationStatistics | None = None,
        head: HeadSetting = "linear",
    ):
        """``outputs`` are those of a network itself; ``std`` is σ at the start.

        Args:
            space: of the inputs, where they go through a torso.
            torso: what makes features of them.
            layer_norm: normalise hidden layers before their activation.
            head: the last layer.
        """
        self.index = index
        self.vectors = vectors
        self.log_std = None
        self.statistics = statistics
        if vectors is not None and vectors.numbers:
            shape = (max(index) + 1, vectors.numbers)
            self.log_std = jnp.full(shape, math.log(std), jnp.float32)
        self.identify = tuple(index.count(g) > 1 for g in index)
        ids = len(index) if any(self.identify) else 0

        def network(key: PRNGKey) -> History:
            taken: int | Torso | OwnTorso = inputs + ids
            if space is not None:
                key, torso_key = jax.random.split(key)
                taken = make_torso(space, ids, torso, torso_key)
            return History(
                taken, outputs, hidden, key, recurrent, activation, last, gain, layer_norm, head
            )

        self.networks = eqx.filter_vmap(network)(jax.random.split(key, max(index) + 1))

    @property
    def hidden_size(self) -> int:
        return self.networks.hidden_size

    @property
    def hidden(self) -> tuple[int, ...]:
        """Hidden layer sizes."""
        layers = self.networks.body.layers[:-1]
        return tuple(layer.weight.shape[-1] for layer in layers if isinstance(layer, Linear))

    @property
    def activation(self) -> str:
        return self.networks.body.activation

    @property
    def head(self) -> OwnHead | None:
        """The last layer, where it is the user's own."""
        last = self.networks.body.layers[-1]
        return last if isinstance(last, OwnHead) else None

    @property
    def layer_norm(self) -> bool:
        return bool(self.networks.body.norms)

    def initial_hidden_state(self, *batch: int) -> Float[Array, "*B N H"]:
        torso, shape = self.networks.torso, (*batch, len(self.index), self.hidden_size)
        if not isinstance(torso, OwnTorso) or not torso.hidden_size:
            return jnp.zeros(shape)
        each = eqx.filter_vmap(OwnTorso.initial_hidden_state)(torso)
        return jnp.broadcast_to(each[np.asarray(self.index)], shape)

    initial_memory = former_attribute("initial_memory", "initial_hidden_state")

    def unroll(
        self,
        hidden_state: Float[Array, "*M N H"],
        observations: Num[Array, "T *M N O"],
        start: Bool[Array, "T *M N"],
    ) -> tuple[Float[Array, "T *M N J"], Float[Array, "T *M N H"]]:
        """Each agent's outputs and hidden states along a sequence (see ``History.unroll``)."""
        outputs, hidden_states = self._unroll(hidden_state, self._inputs(observations), start)
        return self._with_log_std(outputs), hidden_states

    def _with_log_std(self, outputs: Float[Array, "*S N J"]) -> Float[Array, "*S N K"]:
        """Outputs as ``ActionVectors`` reads them: log σ of the numbers comes last."""
        vectors = self.vectors
        if self.log_std is None or vectors is None:
            return outputs
        log_std = jnp.asarray(self.log_std)  # parameters may be NumPy's
        if vectors.std_of_observation:
            outputs, more = jnp.split(outputs, [vectors.outputs], axis=-1)
            log_std = _floored(log_std[np.asarray(self.index)] + more, vectors.least_std)
        else:
            # Of each network: there the gradient is that of the whole loss, whose sign counts.
            log_std = _floored(log_std, vectors.least_std)[np.asarray(self.index)]
            log_std = jnp.broadcast_to(log_std, (*outputs.shape[:-1], log_std.shape[-1]))
        return jnp.concatenate([outputs, log_std], axis=-1)

    def _unroll(
        self,
        hidden_state: Float[Array, "*M N H"],
        inputs: Num[Array, "T *M N I"],
        start: Bool[Array, "T *M N"],
    ) -> tuple[Float[Array, "T *M N J"], Float[Array, "T *M N H"]]:
        n_networks = max(self.index) + 1
        networks = jax.tree.map(jnp.asarray, self.networks)  # parameters may be NumPy's
        if n_networks == 1:
            one = jax.tree.map(lambda p: p[0], networks)
            return one.unroll(hidden_state, inputs, start)
        if self.index != tuple(range(n_networks)):
            routing = jnp.asarray(self.index)
            networks = jax.tree.map(lambda p: p[routing], networks)
        per_agent = eqx.filter_vmap(History.unroll, in_axes=(0, -2, -2, -1), out_axes=(-2, -2))
        return per_agent(networks, hidden_state, inputs, start)

    def step(
        self,
        hidden_state: Float[Array, "*M N H"],
        observations: Num[Array, "*M N O"],
        start: Bool[Array, "*M N"],
    ) -> tuple[Float[Array, "*M N J"], Float[Array, "*M N H"]]:
        """One step of ``unroll``."""
        outputs, hidden_states = self.unroll(hidden_state, observations[None], start[None])
        return outputs[0], hidden_states[0]

    def normalised_by(self, statistics: ObservationStatistics | None) -> PerAgent:
        """The same networks, which normalise what they observe."""
        if statistics is None:
            return self
        return eqx.tree_at(lambda p: p.statistics, self, statistics, is_leaf=lambda x: x is None)

    def _inputs(self, observations: Num[Array, "*S N O"]) -> Num[Array, "*S N I"]:
        """What networks take: observations, normalised or not, and the ids of those who share."""
        if self.statistics is not None:
            observations = self.statistics.normalise(observations)
        return self._with_id(observations)

    def _with_id(self, observations: Num[Array, "*S N O"]) -> Num[Array, "*S N I"]:
        if not any(self.identify):
            return observations
        ids = jnp.diag(jnp.asarray(self.identify, jnp.float32))
        ids = jnp.broadcast_to(ids, (*observations.shape[:-1], len(self.index)))
        return joined([observations, ids])


def sharing_index(spec: EnvSpec, sharing: str, groups: Groups = ()) -> tuple[int, ...]:
    """Which network each agent uses under ``own``, ``shared`` or named groups.

    Raises:
        UsageError: unknown agents, an agent in two groups.
    """
    if sharing not in ("own", "shared"):
        raise UsageError(f"sharing must be own or shared; got {sharing!r}")
    if not groups:
        return tuple(0 if sharing == "shared" else i for i in range(spec.n_agents))
    split = [tuple(group.split(",")) for group in groups]
    named = [name for group in split for name in group]
    unknown = sorted(set(named) - set(spec.agents))
    if unknown or len(set(named)) != len(named):
        problem = f"unknown agents {unknown}" if unknown else "an agent in two groups"
        raise UsageError(f"groups name {problem}; the agents are {', '.join(spec.agents)}")
    owner = {name: group[0] for group in split for name in group}
    order: dict[str, int] = {}
    return tuple(order.setdefault(owner.get(a, a), len(order)) for a in spec.agents)


def _floored(log_std: Float[Array, "*S"], least: float) -> Float[Array, "*S"]:
    return at_least(log_std, math.log(least)) if least else log_std
