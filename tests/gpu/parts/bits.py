"""Two runs of ten steps: the same bits with deterministic algorithms, and how far apart they are without."""

import torch
from torch import Tensor

from tests.gpu.findings import Findings
from tests.gpu.parts import _small


def check(findings: Findings, device: torch.device, quick: bool) -> None:
    """A form of each method, as it comes and deterministic, in bf16."""
    for form in _small.ONE_EACH if quick else _small.EVERY_METHOD:
        for deterministic in (False, True):
            what = f"{form}, {'deterministic' if deterministic else 'as it comes'}"
            torch.use_deterministic_algorithms(deterministic)
            with findings.going_on(what):
                first, second = (_ten_steps(form, device, quick, deterministic) for _ in range(2))
                equal = all(map(torch.equal, first, second))
                gap = float((first[0] - second[0]).norm() / first[0].norm())
                if deterministic:
                    findings.check(what, equal, gap=gap)
                else:
                    findings.figure(what, equal=equal, gap=gap)
            torch.use_deterministic_algorithms(False)


def _ten_steps(form: str, device: torch.device, quick: bool, deterministic: bool) -> tuple[Tensor, Tensor]:
    """Weights and state after ten steps, three where it must be quick."""
    training = _small.training(form, device, quick, {"precision": "bf16", "deterministic": deterministic})
    for _ in range(3 if quick else 10):
        training.advance()
    return training.weights(), training.state()
