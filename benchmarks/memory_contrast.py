"""Anchors against a memory of pixels and regions of known classes: loss and gradient (arXiv 2101.11939).

Shape legend: N anchors, D = 256 channels, C = 19 classes, R = 2 C Q rows of a memory of Q pixels and Q regions a class.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from mdp.core.pixel_contrast import memory_contrast

CLASSES = 19
CHANNELS = 256
TAU = 0.07
BLOCK = 64  # anchors of the floor


def cases() -> dict[str, Callable[[], Case]]:
    """A fifth of Cityscapes' memory, and all of it."""
    gates = (Gate("plain", 1.5), Gate("plain", 20.0, what="memory"))
    sizes: dict[str, tuple[int, int, tuple[Gate, ...]]] = {
        "N=256 R=38000": (256, 1000, (Gate("plain", 1.5),)),
        "N=1024 R=190000": (1024, 5000, gates),
    }
    return {label: partial(_case, label, *size) for label, size in sizes.items()}


def _case(label: str, count: int, queue: int, gates: tuple[Gate, ...]) -> Case:
    rng = inputs.rng_of(1)
    centres = torch.randn(CLASSES, CHANNELS, generator=rng)
    labels = torch.randint(CLASSES, (count,), generator=rng)
    known = torch.arange(CLASSES).repeat_interleave(2 * queue)  # (R,)
    rows, memory = _around(centres[labels], rng), _around(centres[known], rng)
    entries = (
        Entry("memory_contrast", "ours", inputs.graded(rows, lambda leaf: _ours(leaf, labels, memory, known))),
        Entry("all logits, masks", "plain", inputs.graded(rows, lambda leaf: _masked(leaf, labels, memory, known))),
        Entry(f"two matmuls, blocks of {BLOCK}", "floor", _floor(rows, memory)),
    )
    return Case("memory contrast", label, entries, gates, lambda: _exact(rows, labels, memory, known))


def _around(centres: Tensor, rng: torch.Generator) -> Tensor:
    """Unit vectors, the cosines of which with their centre are about 0.7."""
    return F.normalize(centres + torch.randn(centres.shape, generator=rng), dim=1)


def _ours(rows: Tensor, labels: Tensor, memory: Tensor, known: Tensor) -> Tensor:
    return memory_contrast(rows, labels, memory, known, TAU).mean()


def _masked(rows: Tensor, labels: Tensor, memory: Tensor, known: Tensor) -> Tensor:
    """The loss as the paper's formula reads, every pair of it: what each positive has in its denominator."""
    logits = rows @ memory.T / TAU  # (N, R)
    logits = logits - logits.max(1, keepdim=True).values.detach()
    alike = (labels[:, None] == known).float()
    scores = logits.exp()
    others = (scores * (1 - alike)).sum(1, keepdim=True)
    log_p = logits - (scores + others).log()
    return -((alike * log_p).sum(1) / alike.sum(1)).mean()


def _floor(rows: Tensor, memory: Tensor) -> Run:
    """Logits and the product that the gradient needs, a block of anchors at a time."""

    def run() -> Tensor:
        gradient, logits = torch.empty_like(rows), rows.new_empty(BLOCK, len(memory))
        for start in range(0, len(rows), BLOCK):
            torch.mm(rows[start : start + BLOCK], memory.T, out=logits)
            torch.mm(logits, memory, out=gradient[start : start + BLOCK])
        return gradient

    return run


def _exact(rows: Tensor, labels: Tensor, memory: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """In float64, a few anchors at a time."""
    far, parts, values, gradients = memory.double(), len(rows) // 16, [], []
    for some, own in zip(rows.double().chunk(parts), labels.chunk(parts), strict=True):
        leaf = some.clone().requires_grad_()
        value = _masked(leaf, own, far, known) * len(own) / len(rows)
        gradients.append(torch.autograd.grad(value, leaf)[0])
        values.append(value.detach())
    return torch.stack(values).sum(), torch.cat(gradients)
