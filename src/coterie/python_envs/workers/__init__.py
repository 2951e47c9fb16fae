"""Python environments stepped together, here or in worker processes. No module here imports JAX."""
