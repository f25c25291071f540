"""`mdp check`: every image is read once, and what is wrong is told before training finds it.

`job.py` has the order of things; `scan.py` looks at an image, `report.py` judges what was seen, `known_mistakes.py`
asks the datasets' files what it may mean, and `remembered.py` keeps a second look from reading anything again.
"""
