"""`mdp check`: every image is read once, and what is wrong is reported before training meets it.

`job.py` has the order of things; `scan.py` looks at an image, `report.py` judges what it found, `known_mistakes.py`
asks the datasets' files what it may mean, and `remembered.py` keeps a second look from reading anything again.
"""
