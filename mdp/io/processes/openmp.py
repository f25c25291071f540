"""How long an OpenMP thread looks for work before it sleeps, where the environment says nothing.  Imports no torch.

torch cuts an operation into one piece a core, and whoever is done first waits for the others.  By its own default a
thread of libgomp looks 300,000 times, some milliseconds, before it sleeps, one of libomp and libiomp5 for 200 ms.  On a
machine that others use as well these looks take the time of the very thread that is waited for, operation by operation.
Asleep, a thread costs nothing and is woken at once; but where nothing else runs the waking costs more than the looks.

`python -m benchmarks.busy`, two cores, examples/recipes/tiny.yaml, steps a second as ratios to libgomp's own default:

    looks before sleep    idle    beside two busy processes    beside about six
    300,000               1       1                            1
    1,000 (25 us)         0.95    2.9 (1.7 and 4.1)            4.2
    0 (passive)           0.87    3.5 (1.8 and 5.2)            5.9
    one thread only       0.60    3.6 (2.0 and 5.3)            -
"""

import os
from collections.abc import MutableMapping

DEFAULT = {
    "GOMP_SPINCOUNT": "1000",  # libgomp: torch's wheels for Linux
    # libomp and libiomp5 (macOS, Windows, conda), in ms, the least that all versions take: a waking costs under a
    # twentieth of that.  By reasoning, not measured.
    "KMP_BLOCKTIME": "1",
}
SAYS_HOW = (*DEFAULT, "OMP_WAIT_POLICY", "KMP_LIBRARY")  # whoever has set one of these has chosen


def sleep_soon(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets how threads wait, unless the environment has it; of use only before torch is imported.

    For a program, which owns its process: the command line calls it, and processes and workers inherit it.  A library
    must not change the environment of whoever imports it.  No bit of what is computed depends on it.
    """
    if not any(name in environment for name in SAYS_HOW):
        environment.update(DEFAULT)
