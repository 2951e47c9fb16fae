"""One Python environment with agents as an array axis. No module here imports JAX."""
