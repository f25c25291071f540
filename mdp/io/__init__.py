"""The imperative shell: everything that touches files, processes, devices or clocks.

`mdp.io` calls `mdp.core`; core never looks up here, and nothing here imports click.
"""
