"""This process among others, its device, and the signals that it answers to."""
