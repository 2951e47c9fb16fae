"""The multi-agent policy-gradient theorem, checked: exact gradients and what algorithms sample.

Stag hunt, played twice. Each agent knows what it did in the first round itself, z is what both did.
"""

import equinox as eqx
import numpy as np

import coterie
from coterie.analysis.gradients import ESTIMATORS, estimate, exact_critics
from coterie.games.finite import matrix_game

SAMPLES = 2**14
ERROR = 0.5  # of the wrong critics, standard deviation


def show(title, found):
    print(f"\n{title}")
    print(f"{'':10} {'bias':>8} {'± chance':>9} {'variance':>9} {'cosine':>8}")
    for name, e in found.items():
        verdict = "unbiased" if e.unbiased else "biased"
        print(
            f"{name:10} {max(e.bias):8.4f} {max(e.error):9.4f} {max(e.variance):9.3f} "
            f"{min(e.cosine):8.4f}  {verdict}"
        )


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    game = matrix_game(coterie.make("matrix/stag-hunt").payoffs, rounds=2, sees="own")
    logits = [rng.normal(size=(seen.max() + 1, 2)) for seen in game.seen]
    exact = exact_critics(game, logits)
    right = {name: estimate(game, logits, name, exact, SAMPLES) for name in ESTIMATORS}
    show("Exact critics: every estimator has the theorem's gradient", right)

    def mistaken(values):
        return values + ERROR * rng.normal(size=values.shape).astype(np.float32)

    fields = lambda c: (c.observed, c.central, c.joint)  # noqa: E731
    wrong = eqx.tree_at(fields, exact, replace_fn=mistaken)
    biased = {name: estimate(game, logits, name, wrong, SAMPLES) for name in ESTIMATORS}
    show("Wrong critics: what is bootstrapped from, or credited with Q, is biased", biased)
    assert all(e.unbiased for e in right.values())
    assert [name for name, e in biased.items() if e.unbiased] == ["reinforce"]
