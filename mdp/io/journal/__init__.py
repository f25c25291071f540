"""What a run tells while it goes: lines for people, records in files, events for TensorBoard.

`journal.py` is what a run talks to; the others are the places where its words go, and `history.py` reads them back.
"""
