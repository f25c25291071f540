"""`mdp report`: one HTML page about runs.

`run_facts.py` reads a run's folder, `page.py` puts the parts of the page together, and each of the others makes one of
them; `compared.py` is what `mdp compare` reports.
"""
