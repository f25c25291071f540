"""Weights files of other projects: reading without executing, recognising, loading into our networks.

`reading.py`, `pickled_file.py` and `pickles.py` take nothing but numbers out of a file, `transformers_names.py` gives
Hugging Face's the names that backbones here have, `init.py` finds a network in it, `inspect.py` tells what there is.
"""
