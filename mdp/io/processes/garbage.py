"""Python's search for cycles of garbage, kept out of imports.  Imports no torch.

torch and mdp together are 1,500 modules of 300,000 objects, of which none is garbage; to look through them again and
again takes an eighth of the time before a first step.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unsearched() -> Iterator[None]:
    """Nothing is searched inside, and what is there at the end never again.

    For a program, which owns its process: where torch is there already nothing changes.
    """
    if not gc.isenabled() or "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
