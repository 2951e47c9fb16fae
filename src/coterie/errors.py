"""Errors that a user, or a user's environment, can cause."""


class UsageError(ValueError):
    """Something the user asked for cannot be done; the message says what, and what would work.

    The command line prints it as its only line and exits with status 2.
    """


class EnvironmentFault(RuntimeError):
    """An environment broke down or its promise; the message says which, when, whose and what.

    Attributes:
        what: what happened, as the rest of a sentence.
        environment: its name.
        agent: the agent whose part was at fault; ``None`` where it is nobody's own.
        step: steps taken in the episode, the faulty one included; 0 is the reset,
            ``None`` where it is not known.
    """

    def __init__(
        self, what: str, environment: str, agent: str | None = None, step: int | None = None
    ) -> None:
        # All of it are arguments of the base: so it survives being pickled by a worker.
        super().__init__(what, environment, agent, step)
        self.what = what
        self.environment = environment
        self.agent = agent
        self.step = step

    def __str__(self) -> str:
        when = {None: "", 0: ", reset"}.get(self.step, f", step {self.step}")
        whose = f", agent {self.agent}" if self.agent is not None else ""
        return f"{self.environment}{when}{whose}: {self.what}"
