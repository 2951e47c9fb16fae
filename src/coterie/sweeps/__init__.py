"""Sweeps: many runs from one file, each an ordinary run directory."""
