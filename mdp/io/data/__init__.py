"""From datasets to batches: which images, in which order, cut how, by which workers.

`selection.py` finds the datasets of a run, `pool.py` and `order.py` say what comes when, `crops.py` and `views.py` make
items of it, and `loader.py` has them made by other processes.
"""
