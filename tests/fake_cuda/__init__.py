"""CUDA without a GPU: `FakeCuda` finds mixed devices, shapes and dtypes, and tells who waits for the device.

`python -m tests.fake_cuda` goes through all cases, `tests/test_fake_cuda.py` through the fewest that meet every part.
Coming checks count in `Report`: waits, launches and copies, each with its phase and the line that asked for it.
"""

from tests.fake_cuda.mode import DEVICE, FakeCuda, on_device
from tests.fake_cuda.report import Note, Report

__all__ = ["DEVICE", "FakeCuda", "Note", "Report", "on_device"]
