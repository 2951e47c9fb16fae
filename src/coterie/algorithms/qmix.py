"""Monotonic value decomposition, QMIX (lecture, same section; Rashid et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from jaxtyping import Array, Float, Num

from coterie.learners.contract import Mode
from coterie.learners.experience import Experience
from coterie.learners.value_based import ValueBased
from coterie.networks.mixers import MonotonicMixer
from coterie.networks.torsos import Torso
from coterie.ops.losses import one_step_target
from coterie.settings import Positive, Width
from coterie.types import PRNGKey
from coterie.views.game import Game


@dataclass(frozen=True, kw_only=True)
class QMIX(ValueBased):
    """Decomposes the team's value monotonically, the mixing weights made from z.

    Q(h, z, a) = f_mix(Q(h_1, a_1; θ_1), ..., Q(h_n, a_n; θ_n); z), ∂Q/∂Q_i ≥ 0, and
    y = r + γ (1 − terminated) f̄_mix(max_a' Q(h_1', a'; θ̄_1), ...; z').
    """

    mode: ClassVar[Mode] = "centralised training, decentralised execution"
    common_reward: ClassVar[bool] = True
    central: ClassVar[bool] = True
    own_minibatch: ClassVar[bool] = False

    mixer_embedding: Width = 32
    """Width E of the mixing network."""
    hyper_hidden: Width = 64
    """Width of the hypernetworks' hidden layers."""
    mixer_scale: Positive = 1.0
    """Scale of the hypernetworks' initial weights. A small one lets joint values begin near 0
    where the numbers in z are far above 1, as positions and health may be."""

    def make_mixer(self, key: PRNGKey, game: Game) -> MonotonicMixer:
        """The mixing network; it has no hidden state, so its torso is none of the user's own."""
        z: int | Torso = game.central_size
        if game.players.observations and z:
            key, torso_key = jax.random.split(key)
            name = self.torso if isinstance(self.torso, str) else "auto"
            z = Torso(game.central_space, name, torso_key)
        n = game.spec.n_agents
        return MonotonicMixer(n, z, self.mixer_embedding, self.hyper_hidden, key, self.mixer_scale)

    def joint(
        self,
        mixer: MonotonicMixer,
        utilities: Float[Array, "*S N"],
        central: Num[Array, "*S Z"],
    ) -> Float[Array, "*S 1"]:
        """Q(h, z, a) = f_mix(Q(h_1, a_1; θ_1), ..., Q(h_n, a_n; θ_n); z)."""
        return mixer(utilities, central)[..., None]

    def target(
        self, batch: Experience, next_values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """y = r + γ f̄_mix(max_a' Q(h_1', a'; θ̄_1), ...; z'), or r if h' is terminal."""
        common, terminal = batch.rewards[..., :1], batch.terminated[..., :1]
        return one_step_target(common, terminal, next_values, self.gamma)

    def step_loss(
        self, targets: Float[Array, "L B M"], values: Float[Array, "L B M"]
    ) -> Float[Array, "L B M"]:
        """(y − f_mix(Q(h_1, a_1; θ_1), ...; z))²."""
        return (targets - values) ** 2
