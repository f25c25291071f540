"""Weights files of other projects: reading without executing, recognising, loading into our networks.

`reading.py` and `pickles.py` take nothing but numbers out of a file, `init.py` finds a network in it, and `inspect.py`
tells what there is.
"""
