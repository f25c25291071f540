"""`mdp suspects`: which labels of a dataset a model disagrees with, and how strongly.

`job.py` is the command, `folds.py` trains networks that have not seen the images, `classifiers.py` gives the class
probabilities of an image, `findings.py` and `page.py` are what is written.
"""
