"""The words of a run while it goes: lines for people, records in files, events for TensorBoard.

`journal.py` is what a run talks to; the others are where its words go, and `history.py` reads them back.
"""
