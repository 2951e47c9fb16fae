"""Choosing actions: distributions over them, and the one place where a policy acts."""
