"""Features as they are, and segmentation without labels: mdp retrieve, probe, propagate and the commands of `mdp luss`.

`asked.py` has what each is asked, `features.py` opens frozen features of any weights for all of them; what a command of
`mdp luss` writes the next takes.
"""
