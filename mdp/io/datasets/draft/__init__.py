"""`mdp datasets init`: the YAML file of a folder whose layout is unknown, as far as its files tell.

`tree.py` lists the folder, `readings` has a file for each kind of layout, `label_values.py` looks into label maps for
their classes, `text.py` writes the result down: what is certain as it is, what is not beside it as a comment.
"""
