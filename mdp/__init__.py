"""Multi-dataset pretraining for semantic segmentation.

`mdp.core` holds the pure numerics, `mdp.io` everything that touches files, devices or clocks, `mdp.cli` the
command line.  This file imports neither, so that `mdp --help` answers without loading torch.
"""

__version__ = "0.1.0"
