"""What algorithms share: users subclass these."""
