"""Ends a training when its evaluations no longer improve, and prints each of them on the way."""

import coterie


class Plateau:
    """Says stop when the last ``patience`` evaluations were no better than the best before."""

    def __init__(self, patience: int, least: float = 0.0):
        self.patience, self.least = patience, least
        self.best, self.since = float("-inf"), 0

    def __call__(self, event: coterie.Event) -> bool:
        score = event.score
        assert score is not None  # every evaluation has one
        self.since += 1
        if score > self.best + self.least:
            self.best, self.since = score, 0
        return self.since >= self.patience


def show(event: coterie.Event) -> None:
    if event.kind == "evaluation":
        print(f"{event.env_steps:>7,} steps: return {event.score:.2f}")


if __name__ == "__main__":
    run = coterie.train(
        coterie.IA2C(), "matrix/climbing", steps=500_000, seeds=2, evaluations=50, callback=show,
        stop=Plateau(patience=5),
    )  # fmt: skip
    print(f"ended after {run.steps:,} of 500,000 steps")
    assert run.steps < 500_000
