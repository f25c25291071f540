"""Pixels against class prototypes (eq. 4, 7, 8): length, loss and the gradient of the raw embeddings.

Shape legend: B images, D = 256 channels, h x w grid, N = B h w pixels, C classes, K similar classes a pixel.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import peer
from mdp.core.contrast import pixel_rows, prototype_nce
from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import Prototypes
from mdp.core.targets import (
    Targets,
    hard_targets,
    mixed_targets,
    prototype_similarity,
    sparse_targets,
    targets_by_class,
)

TAU = 0.07
CHANNELS = 256
WEIGHT = 0.1  # of the similar classes
BLOCK = 1024  # pixels

Loss = Callable[[Tensor], Tensor]


def cases() -> dict[str, Callable[[], Case]]:
    """The hard form by size and layout, then the other forms of target."""
    by_size = {
        "N=6272 C=342 NCHW": (8, 342, "NCHW", 1.3, 1.5, 6.0),
        "N=25088 C=342 NCHW": (32, 342, "NCHW", 1.4, 2.1, 6.0),
        "N=25088 C=342 channels_last": (32, 342, "channels_last", 1.15, 1.6, 6.0),
        "N=100352 C=342 NCHW": (128, 342, "NCHW", 2.0, 2.6, 4.5),
        "N=25088 C=21 NCHW": (32, 21, "NCHW", 2.3, 3.3, 6.0),
        "N=25088 C=21 channels_last": (32, 21, "channels_last", None, None, 6.0),
    }
    made: dict[str, Callable[[], Case]] = {label: partial(_hard, label, *size) for label, size in by_size.items()}
    made["two labels, N=25088 C=342 NCHW"] = partial(_mixed, "two labels, N=25088 C=342 NCHW", "NCHW")
    made["two labels, N=25088 C=342 channels_last"] = partial(
        _mixed, "two labels, N=25088 C=342 channels_last", "channels_last"
    )
    for k in (3, 20):
        made[f"sparse K={k}, sets given, N=25088 C=342 NCHW"] = partial(_sparse_given, k)
        made[f"sparse K={k}, sets found, N=25088 C=342 NCHW"] = partial(_sparse_found, k)
    made["40 % ignored, N=25088 C=342 NCHW"] = _ignored
    return made


# The cases


def _hard(
    label: str, count: int, classes: int, layout: str, best: float | None, plain: float | None, memory: float
) -> Case:
    raw, labels, known = _inputs(count, classes, layout)
    gates = [Gate("plain", memory, what="memory")]
    gates += [Gate("plain", plain)] if plain else []
    gates += [Gate("best peer", best)] if best else []
    gates += [Gate("floor", at_most=1.45)] if (layout, count, classes) == ("NCHW", 32, 342) else []
    entries = (
        Entry("prototype_nce, unit=False", "ours", _ours(raw, known, lambda: hard_targets(labels))),
        *_hard_peers(raw, labels, known),
        Entry("normalize + matmul + cross_entropy", "plain", inputs.graded(raw, partial(_plain_hard, labels, known))),
        Entry(f"two matmuls, blocks of {BLOCK}", "floor", _floor(raw, known)),
    )
    return Case("prototype loss", label, entries, tuple(gates), lambda: _exact(raw, known, hard_targets(labels)))


def _mixed(label: str, layout: str) -> Case:
    raw, first, known = _inputs(32, 342, layout)
    rng = inputs.rng_of(2)
    second, share = inputs.label_maps(rng, 32, 28, 28, 342), torch.rand(32, generator=rng)
    entries = (
        Entry("prototype_nce", "ours", _ours(raw, known, lambda: mixed_targets(first, second, share))),
        Entry("the hard form", "ours", _ours(raw, known, lambda: hard_targets(first)), exact=False),
        Entry("two cross entropies", "plain", inputs.graded(raw, partial(_plain_mixed, first, second, share, known))),
    )
    gates = [Gate("the hard form", at_most=1.1), Gate("plain", 5.5, what="memory")]
    gates += [Gate("plain", 4.0)] if layout == "NCHW" else []
    return Case(
        "prototype loss", label, entries, tuple(gates),
        lambda: _exact(raw, known, mixed_targets(first, second, share)),
    )  # fmt: skip


def _sparse_given(k: int) -> Case:
    """The loss alone: what K targets more a pixel cost."""
    raw, labels, known = _inputs(32, 342, "NCHW")
    targets = _sparse_targets(labels, known, k)
    entries = (
        Entry("prototype_nce", "ours", _ours(raw, known, lambda: targets)),
        Entry("K=0", "ours", _ours(raw, known, lambda: hard_targets(labels)), exact=False),
    )
    return Case(
        "prototype loss", f"sparse K={k}, sets given, N=25088 C=342 NCHW", entries, (Gate("K=0", at_most=1.15),),
        lambda: _exact(raw, known, targets),
    )  # fmt: skip


def _sparse_found(k: int) -> Case:
    """With the search for the K classes that are similar to the pixel's own."""
    raw, labels, known = _inputs(32, 342, "NCHW")
    entries = (
        Entry(
            "prototype_similarity + prototype_nce", "ours",
            _ours(raw, known, partial(_sparse_targets, labels, known, k)),
        ),
        Entry("K=0", "ours", _ours(raw, known, lambda: hard_targets(labels)), exact=False),
        Entry("top-k a pixel, log_softmax", "plain", inputs.graded(raw, partial(_plain_sparse, labels, known, k))),
    )  # fmt: skip
    gates = (Gate("plain", 3.4), Gate("plain", 5.0, what="memory")) if k == 3 else (Gate("K=0", at_most=1.15),)
    return Case(
        "prototype loss", f"sparse K={k}, sets found, N=25088 C=342 NCHW", entries, gates,
        lambda: _exact(raw, known, _sparse_targets(labels, known, k)),
    )  # fmt: skip


def _ignored() -> Case:
    raw, _, known = _inputs(32, 342, "NCHW")
    labels = inputs.label_maps(inputs.rng_of(3), 32, 28, 28, 342, ignored=0.4)
    full = inputs.label_maps(inputs.rng_of(3), 32, 28, 28, 342, ignored=0)
    entries = (
        Entry("prototype_nce", "ours", _ours(raw, known, lambda: hard_targets(labels))),
        Entry("nothing ignored", "ours", _ours(raw, known, lambda: hard_targets(full)), exact=False),
        *_hard_peers(raw, labels, known),
        Entry("normalize + matmul + cross_entropy", "plain", inputs.graded(raw, partial(_plain_hard, labels, known))),
    )
    gates = (Gate("nothing ignored", at_most=0.7), Gate("best peer", 1.4), Gate("plain", 2.8))
    return Case(
        "prototype loss", "40 % ignored, N=25088 C=342 NCHW", entries, gates,
        lambda: _exact(raw, known, hard_targets(labels)),
    )  # fmt: skip


# The entries


def _inputs(count: int, classes: int, layout: str) -> tuple[Tensor, Tensor, Prototypes]:
    rng = inputs.rng_of(1)
    raw = inputs.embeddings(rng, count, CHANNELS, 28, 28, layout)
    labels = inputs.label_maps(rng, count, 28, 28, classes)
    return raw, labels, inputs.prototypes(rng, classes, CHANNELS)


def _ours(raw: Tensor, known: Prototypes, targets: Callable[[], Targets]) -> Run:
    return inputs.graded(raw, lambda leaf: prototype_nce(leaf, known, targets(), TAU, unit=False).mean())


def _logits(leaf: Tensor, known: Prototypes) -> Tensor:
    return pixel_rows(F.normalize(leaf, dim=1)) @ known.vectors.T / TAU  # (N, C)


def _plain_hard(labels: Tensor, known: Prototypes, leaf: Tensor) -> Tensor:
    return F.cross_entropy(_logits(leaf, known), labels.flatten(), ignore_index=IGNORE)


def _plain_mixed(first: Tensor, second: Tensor, share: Tensor, known: Prototypes, leaf: Tensor) -> Tensor:
    logits, lam = _logits(leaf, known), share[:, None, None].expand(first.shape).flatten()
    both = ((first, lam), (second, 1 - lam))
    total, weight = logits.new_zeros(()), logits.new_zeros(())
    for labels, part in both:
        flat = labels.flatten()
        total = total + (F.cross_entropy(logits, flat, ignore_index=IGNORE, reduction="none") * part).sum()
        weight += (part * (flat != IGNORE)).sum()
    return total / weight


def _sparse_targets(labels: Tensor, known: Prototypes, k: int) -> Targets:
    every = hard_targets(torch.arange(len(known.present)))
    return targets_by_class(labels, sparse_targets(every, prototype_similarity(every, known), known, k, WEIGHT))


def _plain_sparse(labels: Tensor, known: Prototypes, k: int, leaf: Tensor) -> Tensor:
    flat = labels.flatten()
    valid, own = flat != IGNORE, flat.clamp(min=0)
    log_p = F.log_softmax(_logits(leaf, known), 1)
    similarity = (known.vectors[own] @ known.vectors.T).scatter(1, own[:, None], -torch.inf)  # (N, C)
    pulls = log_p.gather(1, own[:, None])[:, 0] + WEIGHT / k * log_p.gather(1, similarity.topk(k).indices).sum(1)
    return -(pulls * valid).sum() / valid.sum()


def _hard_peers(raw: Tensor, labels: Tensor, known: Prototypes) -> list[Entry]:
    return [
        peer("NormalizedSoftmaxLoss", "pytorch_metric_learning.losses", partial(_metric_learning, raw, labels, known)),
        _torch_chunked(raw, labels, known),
    ]


def _metric_learning(raw: Tensor, labels: Tensor, known: Prototypes, losses: ModuleType) -> Run:
    """Its weights are the prototypes, frozen; it has no ignore label, so its caller drops pixels."""
    loss = losses.NormalizedSoftmaxLoss(len(known.vectors), CHANNELS, temperature=TAU)
    loss.W = torch.nn.Parameter(known.vectors.T.contiguous(), requires_grad=False)
    valid, flat = labels.flatten() != IGNORE, labels.flatten()
    return inputs.graded(raw, lambda leaf: loss(pixel_rows(leaf)[valid], flat[valid]))


def _torch_chunked(raw: Tensor, labels: Tensor, known: Prototypes) -> Entry:
    name = f"torch F.linear_cross_entropy, batch_chunk_size={BLOCK}"
    loss, options = getattr(F, "linear_cross_entropy", None), getattr(torch.nn, "LinearCrossEntropyOptions", None)
    if loss is None or options is None:
        return Entry(name, "peer", None, missing="this torch has none")
    chunks = options(batch_chunk_size=BLOCK)

    def total(leaf: Tensor) -> Tensor:
        rows = pixel_rows(F.normalize(leaf, dim=1)) / TAU
        value: Tensor = loss(rows, known.vectors, labels.flatten(), ignore_index=IGNORE, options=chunks)
        return value

    return Entry(name, "peer", inputs.graded(raw, total))


def _floor(raw: Tensor, known: Prototypes) -> Run:
    """Logits and the product that the gradient needs; the logits of a block stay in the cache."""
    rows = pixel_rows(raw).contiguous()

    def run() -> Tensor:
        gradient, logits = torch.empty_like(rows), rows.new_empty(BLOCK, len(known.vectors))
        for start in range(0, len(rows), BLOCK):
            block, slopes = rows[start : start + BLOCK], gradient[start : start + BLOCK]
            some = logits[: len(block)]
            torch.mm(block, known.vectors.T, out=some)
            torch.mm(some, known.vectors, out=slopes)
        return gradient

    return run


def _exact(raw: Tensor, known: Prototypes, targets: Targets) -> tuple[Tensor, Tensor]:
    """The mean over valid pixels in float64, by all logits of an image at once, and its gradient."""
    size, weight = raw.shape[2] * raw.shape[3], targets.valid.double().sum()
    vectors, values, gradients = known.vectors.double(), [], []
    for i, image in enumerate(raw.double().chunk(len(raw))):
        leaf, own = image.requires_grad_(), slice(i * size, (i + 1) * size)
        log_p = F.log_softmax(pixel_rows(F.normalize(leaf, dim=1)) @ vectors.T / TAU, 1)
        value = -(log_p.gather(1, targets.classes[own]) * targets.weights[own]).sum() / weight
        gradients.append(torch.autograd.grad(value, leaf)[0])
        values.append(value.detach())
    return torch.stack(values).sum(), torch.cat(gradients)
