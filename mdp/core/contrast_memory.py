"""The kernel of contrast against a memory: anchors class by class, differentiated as the loss is computed.

Logits of a chunk of anchors lie in one buffer and become e^logits there, zeros at the positives: that is all that the
gradient needs, which is a second product with the memory, and one with the few rows that are positives.  Where each
anchor is contrasted with some rows only, e^logits of the others are zeros too.
Shape legend: N anchors, D embedding channels, R rows of a memory, P of them positives; n anchors of a chunk.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mdp.core.contrast_mining import Choice, chosen_rows

_CHUNK_BYTES = 64 * 2**20  # of logits at a time
_TINY = torch.finfo(torch.float32).tiny


class ClassAnchors(NamedTuple):
    """The anchors of one class, and which rows of the memory are its own."""

    size: int  # anchors, which stand side by side
    positives: Tensor  # (P,) int64, one at least


def against_memory(
    rows: Tensor, anchors: Sequence[ClassAnchors], memory: Tensor, temperature: float, choice: Choice | None = None
) -> Tensor:
    """The sum of all anchors' losses, (), with gradient for `rows` only, to be taken once.

    `rows` (N, D) float32, class by class as `anchors` says; `memory` (R, D) float32.  Without a `choice` anchors meet
    all of it.
    """
    total: Tensor = _AgainstMemory.apply(rows, anchors, memory, temperature, choice)  # type: ignore[no-untyped-call]
    return total


class _AgainstMemory(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        anchors: Sequence[ClassAnchors],
        memory: Tensor,
        temperature: float,
        choice: Choice | None,
    ) -> Tensor:
        total, gradient = rows.new_zeros(()), torch.empty_like(rows)
        size = max(1, min(len(rows), _CHUNK_BYTES // (4 * len(memory))))
        buffer = rows.new_empty(size, len(memory))  # (n, R)
        for start in range(0, len(rows), size):
            part = rows[start : start + size] / temperature  # (n, D)
            logits = torch.mm(part, memory.T, out=buffer[: len(part)])
            pulls = []
            for first, last, positives in _classes(anchors, start, start + len(part)):
                own = choice and choice._replace(draws=choice.draws[start + first : start + last])
                value, scale, pull = _differentiate_(logits[first:last], positives, own)
                total += value
                pulls.append((first, last, scale, pull @ memory[positives]))
            slopes = torch.mm(logits, memory, out=gradient[start : start + len(part)])
            for first, last, scale, pull in pulls:
                slopes[first:last].mul_(scale).sub_(pull).div_(temperature)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None, None, None


def _classes(anchors: Sequence[ClassAnchors], start: int, end: int) -> Iterator[tuple[int, int, Tensor]]:
    """The classes of the anchors from `start` to `end`: the first and last of each, counted from `start`."""
    begin = 0
    for size, positives in anchors:
        first, last = max(begin, start), min(begin + size, end)
        begin += size
        if first < last:
            yield first - start, last - start, positives


def _differentiate_(logits: Tensor, positives: Tensor, choice: Choice | None) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of the losses of a class's anchors, () ; their logits become e^logits of the negatives, up to a factor.

    The slope of a loss to the logits is `scale` (n, 1) times these, less `pull` (n, P) at the positives: those are the
    second and third of what is returned.
    """
    near = logits[:, positives]  # (n, P)
    logits[:, positives] = -torch.inf
    some = _choose_(logits, near, positives, choice)
    chosen = near if some is None else near.gather(1, some)  # (n, K)
    largest = logits.amax(1, keepdim=True).clamp_(min=torch.finfo(logits.dtype).min)  # finite without a negative, too
    mass = logits.sub_(largest).exp_().sum(1, keepdim=True).clamp_(min=_TINY)  # (n, 1)
    distance = (largest + mass.log()) - chosen  # (n, K)
    pull = distance.sigmoid() / chosen.shape[1]
    scale = pull.sum(1, keepdim=True) / mass
    if some is not None:
        pull = torch.zeros_like(near).scatter_(1, some, pull)  # (n, P)
    return F.softplus(distance).mean(1).sum(), scale, pull


def _choose_(logits: Tensor, near: Tensor, positives: Tensor, choice: Choice | None) -> Tensor | None:
    """Leaves each anchor its choice of negatives, the logits of others -inf, and says which positives it has, (n, K).

    None: all of them.
    """
    if choice is None:
        return None
    negatives = logits.shape[1] - len(positives)
    if negatives > choice.negatives:
        left = torch.ones_like(logits[0], dtype=torch.uint8).index_fill_(0, positives, 0)
        # on a GPU `nonzero` would wait for a number that is known here
        others = left.sort(descending=True, stable=True)[1][:negatives] if left.is_cuda else left.nonzero().flatten()
        far = chosen_rows(logits, others, choice.negatives, choice.mining, choice.draws)  # (n, K)
        values = logits.gather(1, far)
        logits.fill_(-torch.inf).scatter_(1, far, values)
    if len(positives) <= choice.positives:
        return None
    own = torch.arange(len(positives), device=positives.device)
    return chosen_rows(-near, own, choice.positives, choice.mining, choice.draws)  # the least alike are hard
