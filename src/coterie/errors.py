"""Errors that a user can cause."""


class UsageError(ValueError):
    """Something the user asked for cannot be done; the message says what, and what would work.

    The command line prints it as its only line and exits with status 2.
    """
