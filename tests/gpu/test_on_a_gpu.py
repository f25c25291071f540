"""The parts that decide whether results on a GPU are right; `make gpu` runs them and all others."""

from pathlib import Path

import pytest
import torch

from tests.gpu.first_contact import main


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
@pytest.mark.parametrize("part", ["core", "methods"])
def test_a_gpu_computes_what_a_cpu_does(part: str, tmp_path: Path) -> None:
    assert main(["--parts", part, "--out", str(tmp_path)]) == 0
