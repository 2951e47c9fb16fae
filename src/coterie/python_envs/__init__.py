"""Environments in Python (Gymnasium, PettingZoo): adapted, stepped, trained on, checked."""
