"""From photos to label maps without labels, in stages: each is a folder that can be stopped and gone on with.

`stage.py` is what they share; `cluster.py`, `label.py` and `sweep.py` are commands.
"""
