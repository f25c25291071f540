"""`mdp export`: weights for other libraries, checked by loading them back.

`source.py` is the run's network, `targets` has a file for each library, `check.py` compares what the library makes of
the file, and `job.py` puts it in its place.
"""
