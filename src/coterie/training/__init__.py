"""Training in one compiled program."""
