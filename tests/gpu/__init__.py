"""What only a GPU can show: `python -m tests.gpu.first_contact` (`make gpu`), in parts with a time limit each.

It needs Python, torch, numpy, pillow, pyyaml, click and this repository; no pytest and no network.
"""
