"""What VDN and QMIX learn of the climbing game: the lecture's decomposition tables.

Both are trained on uniformly random behaviour, so what they tend to depends on the game alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

import coterie
from coterie.games import decomposition
from coterie.training.loop import Program
from coterie.views.game import Game

PLAYS = 100_000
SETTINGS = {
    "epsilon_start": 1.0,  # random behaviour throughout
    "epsilon_end": 1.0,
    "reward_scaling": "none",  # tables in the game's own units
    "learning_starts": 1_000,
    "lr": 1e-3,
}
ALGORITHMS = coterie.VDN(**SETTINGS), coterie.QMIX(**SETTINGS)


def learn(algorithm, env):
    """Plays and learns; returns each agent's utilities [3] and the joint values [3, 3]."""
    central = "state" if algorithm.central else "none"
    program = Program(algorithm.resolve(PLAYS), Game(env, central, "mean"), seeds=1)
    state, total = program.init(seed=0), program.iterations(PLAYS)
    for done in range(0, total, program.chunk):
        state = program.advance(state, done, min(program.chunk, total - done))

    # The game has one state, and what agents see and z are the constant 1. Index 0 is the seed.
    values = jax.tree.map(lambda x: x[0], state.learner.values)
    one = jnp.ones((2, 1))
    scores, _ = values.utility.step(values.utility.initial_hidden_state(), one, jnp.zeros(2, bool))
    joint = jnp.stack(jnp.meshgrid(*scores, indexing="ij"), axis=-1)
    z = jnp.ones((*joint.shape[:-1], 1 if algorithm.central else 0))
    return list(np.asarray(scores)), np.asarray(algorithm.joint(values.mixer, joint, z)[..., 0])


def show(title, table, utilities=None):
    print(f"\n{title}")
    for row, values in enumerate(table):
        own = "" if utilities is None else f"{utilities[0][row]:8.2f} |"
        print(f"{own:>10}", *(f"{value:8.2f}" for value in values))
    if utilities is not None:
        print(f"{'':>10}", *(f"{value:8.2f}" for value in utilities[1]), " <- agent_1")


if __name__ == "__main__":
    climbing = coterie.make("matrix/climbing")
    truth = climbing.payoffs[..., 0]
    show("climbing, the true payoffs", truth)
    fit = decomposition.additive_fit(truth)
    show(f"the best sum of utilities, mean squared error {fit.mse:.1f}", fit.q_tot)
    for algorithm in ALGORITHMS:
        utilities, q_tot = learn(algorithm, climbing)
        mse = decomposition.mse(truth, q_tot)
        igm = decomposition.igm_holds(utilities, q_tot)
        greedy = ", ".join("ABC"[int(np.argmax(u))] for u in utilities)
        show(f"{algorithm.name}, mean squared error {mse:.1f}", q_tot, utilities)
        print(f"greedy: ({greedy}), individual-global-max: {'holds' if igm else 'violated'}")
