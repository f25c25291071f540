"""Settings: what there is to set, where values come from, and what a command line asks for.

`settings.py` has the sections, `fields.py` reads what each setting says of itself, `layers.py` lays their sources over
each other and checks types, `published.py` and `catalogue.py` know the schedules and recipes that others published.
"""
