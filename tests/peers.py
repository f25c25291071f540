"""Libraries that ours is compared with, where they are installed; a test that needs one skips without it."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest

from benchmarks.peers import load


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and remarks of other libraries, which are not ours to mend."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def library_or_skip(module: str) -> ModuleType:
    """The module, torchvision's and those that import it also beside a torch that its compiled part does not fit."""
    with quiet():
        found = load(module)
    if found is None:
        pytest.skip(f"{module.partition('.')[0]} is not installed")
    return found
