"""Annotations of other tools as label maps: outlines and masks of single objects, drawn when a photo is read.

`patches.py`, `coco_masks.py` and `labelme_shapes.py` are pure: numbers in, pixels out, bit for bit as the tools' own
programs have them.  `coco.py`, `labelme.py`, `label_studio.py` and `yolo.py` read a tool's files (`marks.Format`),
`drawing.py` makes label maps of what they hold and keeps them, `class_tables.py` reads lists of classes, `nnunet.py` a
`dataset.json`.
"""
