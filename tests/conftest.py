"""Shared by all tests: Hypothesis without deadlines (CI machines are uneven), one thread, the optional real data."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "mdp", deadline=None, max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "30")),
    suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ,
)  # fmt: skip
settings.load_profile("mdp")
torch.set_num_threads(1)  # small tensors: two threads mostly wait for each other

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real labelled photos, which is not part of the project; tests that need it skip without it."""
    folder = Path(os.environ.get("MDP_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real photos at {folder} (set MDP_TEST_DATA)")
    return folder
