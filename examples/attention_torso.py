"""A network of your own: attention over the entities that an agent observes, trained with IPPO."""

import json
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp

import coterie
from coterie.ops.observations import split

AGENTS = 3
TORSO = "attention_torso:AttentionTorso"  # the class as --torso names it


class AttentionTorso(eqx.Module):
    """An agent attends to the landmarks and to the other agents, in whatever order they are.

    It sees one observation of simple-spread: velocity and position, then where the landmarks and
    the others are, seen from the agent, then words that nobody says.
    """

    own: eqx.nn.Linear
    entity: eqx.nn.Linear
    attention: eqx.nn.MultiheadAttention
    space: coterie.ObservationSpace = eqx.field(static=True)

    def __init__(self, space, key, width=32, heads=2):
        own_key, entity_key, attention_key = jax.random.split(key, 3)
        self.own = eqx.nn.Linear(4, width, key=own_key)
        self.entity = eqx.nn.Linear(3, width, key=entity_key)
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=attention_key)
        self.space = space

    def __call__(self, observation):
        """Features of one observation: a vector in, a vector out."""
        seen, *more = split(observation, self.space)  # MAPPO's critics see z beside it
        own, places = seen[:4], seen[4 : 4 + 2 * (2 * AGENTS - 1)].reshape(-1, 2)
        is_agent = jnp.arange(len(places)) >= AGENTS  # landmarks come first
        entities = jnp.concatenate([places, is_agent[:, None]], axis=1)
        entities = jax.nn.relu(jax.vmap(self.entity)(entities))
        own = jax.nn.relu(self.own(own))
        attended = self.attention(own[None], entities, entities)[0]
        return jnp.concatenate([own, attended, *map(jnp.ravel, more)])


def first_return(run):
    """The mean return of the teams before they learned anything."""
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    metric = run.config["metric"]
    return next(json.loads(line)[metric] for line in lines if metric in line)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        algorithm = coterie.IPPO(torso=TORSO, hidden=(64,), lr=1e-3)
        out = Path(folder) / "run"
        run = coterie.train(
            algorithm, "mpe/simple-spread", 100_000, evaluations=2, final_episodes=0, out=out
        )
        untrained = first_return(run)
        # Nothing is imported because a run's files name it, so the network is given again.
        again = coterie.open_run(out, torso=TORSO)
        trained = again.evaluate(episodes=320)[run.config["metric"]]["mean"]
    print(f"return {untrained:.1f} untrained, {trained:.1f} trained")
    assert trained > untrained + 3
