"""Hot spots of mdp beside what else computes the same: `python -m benchmarks`, from the repository's root."""
