"""Errors that a user can cause."""


class UsageError(ValueError):
    """Something the user asked for cannot be done; the message says what, and what would work.

    The command line prints it as its only line and exits with status 2.
    """


class NotFinite(RuntimeError):
    """A number that learning depends on is infinite or none at all; training stopped right there.

    Attributes:
        what: the quantity, and of which agents.
        seed: which seed of the run.
        step: environment steps of that seed after the rollout in which it happened.
    """

    def __init__(self, what: str, seed: int, step: int):
        super().__init__(
            f"{what} is not finite in seed {seed} at step {step:,}: training stopped before "
            "anything was saved of it"
        )
        self.what, self.seed, self.step = what, seed, step
