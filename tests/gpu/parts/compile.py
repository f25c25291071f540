"""`--compile`: the first compiled step has nearly the loss of one that is not, and how fast the next ones are."""

import time

import torch

from tests.gpu.findings import Findings
from tests.gpu.parts._timing import paper_step, timed

BANK = 8  # batches


def check(findings: Findings, device: torch.device, quick: bool) -> None:
    """The paper's step in bf16."""
    began = time.perf_counter()
    training = paper_step(device, {"precision": "bf16", "compile": True}, quick, bank=BANK)
    loss = training.advance()["loss"]
    seconds = time.perf_counter() - began
    plain = paper_step(device, {"precision": "bf16"}, quick, bank=BANK).advance()["loss"]
    findings.check("first step", abs(loss - plain) < 0.03 * abs(plain), seconds=seconds, loss=loss, plain=plain)
    timing = timed(training, device, 2 if quick else 12)
    findings.figure(
        "bf16, compiled", ms=1000 * timing.seconds, **({} if timing.busy is None else {"busy": timing.busy})
    )
