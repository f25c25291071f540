"""Pure numerics of multi-dataset pretraining."""
