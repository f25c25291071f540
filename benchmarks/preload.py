"""Imported once by the server that the measuring processes are forked from: importing takes longer than measuring."""

import torch._dynamo  # noqa: F401 - F.linear_cross_entropy imports it when it is first called

import mdp.core  # noqa: F401
from benchmarks import peers

for module in peers.DISTRIBUTIONS:
    peers.load(module)
