"""Three whole steps of every method on the CPU and on the device, then in reduced precision; waits of a step."""

import math
import warnings
from functools import partial
from pathlib import Path

import torch

import mdp
from benchmarks.gpu import tf32
from tests.gpu.findings import Findings
from tests.gpu.parts import _small
from tests.whole_steps import FORMS, Training

STEPS = 3
_PACKAGE = Path(mdp.__file__).parent


def check(findings: Findings, device: torch.device, quick: bool) -> None:
    """Every form, or one of each method where it must be quick; TF32 off."""
    for form in _small.ONE_EACH if quick else FORMS:
        start = partial(_small.training, form, quick=quick)
        with tf32(False), findings.going_on(form):
            there = start(device, run={})
            first = _same_steps(findings, form, start(torch.device("cpu"), run={}), there)
            if device.type == "cuda":
                _waits(findings, form, there)
            for precision in ("bf16", "fp16") if device.type == "cuda" else ("bf16",):
                _reduced(findings, f"{form}, {precision}", start(device, run={"precision": precision}), first)


def _same_steps(findings: Findings, form: str, here: Training, there: Training) -> float:
    """Losses, weights and state of both agree; returns the first loss on the device."""
    losses = []
    for step in range(STEPS):
        on_cpu, on_device = here.advance()["loss"], there.advance()["loss"]
        limit = (1e-4 if step == 0 else 2e-3) * max(1.0, abs(on_cpu))
        what = f"{form}, loss of step {step + 1}"
        findings.check(what, abs(on_cpu - on_device) <= limit, cpu=on_cpu, device=on_device)
        losses.append(on_device)
    findings.near(f"{form}, weights after {STEPS} steps", there.weights(), here.weights(), 1e-3)
    findings.near(f"{form}, state after {STEPS} steps", there.state().cpu() + 1, here.state() + 1, 1e-3)  # may be 0
    return losses[0]


def _waits(findings: Findings, form: str, training: Training) -> None:
    """A step waits for the device once at most, as torch's own check tells."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            training.advance()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [_line(warning) for warning in told if "synchron" in str(warning.message)]
    lines = sorted(set(waits))
    findings.check(f"{form}, waits of a step", len(waits) <= 1, count=len(waits), lines=lines)


def _line(warning: warnings.WarningMessage) -> str:
    path = Path(warning.filename)
    return f"{path.relative_to(_PACKAGE) if path.is_relative_to(_PACKAGE) else path.name}:{warning.lineno}"


def _reduced(findings: Findings, what: str, training: Training, expected: float) -> None:
    """The first loss is near that of fp32, and the second is a number."""
    loss, second = training.advance()["loss"], training.advance()["loss"]
    near = abs(loss - expected) <= 0.03 * max(1.0, abs(expected))
    findings.check(what, near and math.isfinite(second), loss=loss, fp32=expected)
