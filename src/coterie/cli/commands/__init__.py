"""One file a command: its settings, and what it does with them."""
