"""A team playing, recorded and drawn."""
