"""What experiments of the lecture share, and how a whole lecture is run."""
