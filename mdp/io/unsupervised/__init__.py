"""Segmentation without labels, and its benchmark: the commands of `mdp luss`.

Each reads and writes files that the next one takes; label maps are the interface.
"""
