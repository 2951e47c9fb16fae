"""Files of a run: whole or not there, with digests, one writer at a time."""
