"""Decoded photos and label maps that are kept for the length of a run (`run.cache`), so that none is decoded twice.

`memory`: once a machine, in memory that loader workers and processes share (`kept.py`).  `device`: where the network
trains, which then cuts crops itself (`on_device.py`).  `opening.py` says beforehand how much that is, and refuses what
does not fit.
"""
