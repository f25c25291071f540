"""Imported once by the server that the measuring processes are forked from: importing takes longer than measuring."""

import mdp.core  # noqa: F401
from benchmarks import peers

for module in peers.DISTRIBUTIONS:
    peers.load(module)
