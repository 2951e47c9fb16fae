"""What a learner sees of an environment."""
