"""A run's folder and its checkpoints: written whole, locked while it is used, opened in one way."""
