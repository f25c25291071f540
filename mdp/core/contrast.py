"""The contrastive kernel: log-softmax over candidates, weighted by targets (paper, eq. 1, 2, 4, 7 and 8).

One `log_softmax` and a gather serve hard, mixed and sparse-coded targets alike; instances, pixels and regions are other
candidates for the same quotient.  Losses come as a total and a weight, so that the mean can be taken over the pixels of
all processes.  Always float32, whatever the autocast; keys and queues receive no gradient, prototypes where they are
learnt.
Shape legend: B images, C classes, D embedding channels, h x w feature grid, N pixels, K targets a pixel, Q rows of a
queue, R rows of all queues.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mdp.core.contrast_chunked import EPS, Candidates, Pull, chunked_total
from mdp.core.label_checks import expect_grid, expect_labels
from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import Prototypes, image_means
from mdp.core.queues import ClassQueues
from mdp.core.targets import Targets

_CHUNK_BYTES = 64 * 2**20  # of logits at a time where candidates are many
_ROWS = 256  # queries at a time, at most: more are not quicker, and take memory


class WeightedLoss(NamedTuple):
    """A sum of pixel losses and the sum of the pixels' weights; the loss is total / weight."""

    total: Tensor  # () float32, with gradient
    weight: Tensor  # () float32

    def mean(self) -> Tensor:
        """total / weight; 0, with gradient 0, when no pixel is valid."""
        return mean_over(self.total, self.weight)


def mean_over(total: Tensor, weight: Tensor) -> Tensor:
    """total / weight; 0, with gradient 0, when the weight is 0, as the total is then."""
    return total / weight.clamp(min=torch.finfo(torch.float32).tiny)


def pixel_rows(embeddings: Tensor) -> Tensor:
    """Pixel embeddings (B, D, h, w) as rows (B h w, D) in the order of a flattened (B, h, w) label map."""
    return embeddings.flatten(2).transpose(1, 2).reshape(-1, embeddings.shape[1])


def _of_unit_length(rows: Tensor, unit: bool) -> Tensor:
    """Rows (..., D) in float32, divided by their length unless they have unit length already."""
    return rows.float() if unit else F.normalize(rows.float(), dim=-1, eps=EPS)


def class_logits(rows: Tensor, known: Prototypes, temperature: float, unit: bool = False) -> Tensor:
    """q.c / temperature for each pixel and class, (N, C) float32; -inf for classes without a prototype.

    Rows (N, D) are divided by their length, unless `unit` says that they have unit length.  The prototypes carry no
    gradient: they are a classifier that is not trained.
    """
    logits = _of_unit_length(rows, unit) @ known.vectors.detach().T / temperature  # (N, C)
    return logits.masked_fill(~known.present, -torch.inf)


def nce(logits: Tensor, targets: Targets) -> WeightedLoss:
    """- sum_k weight_k log p(class_k), summed over pixels (eq. 4, 7, 8; the same line of code for the three).

    Pixels of weight 0 contribute neither loss nor gradient, whatever their logits.  Raises ValueError when the
    numbers of pixels differ, and for targets that are no class.

    >>> from mdp.core.targets import hard_targets
    >>> round(float(nce(torch.zeros(2, 8), hard_targets(torch.tensor([3, -1]))).mean()), 4)  # log 8
    2.0794
    """
    if len(logits) != len(targets.classes):
        raise ValueError(f"{len(logits)} rows of logits for {len(targets.classes)} pixels")
    expect_labels(targets.classes, logits.shape[1])
    chosen = logits.gather(1, targets.classes)  # (N, K)
    if targets.left_out is not None:
        spare = F.pad(logits, (0, 1), value=-torch.inf)  # (N, C+1): column C takes the entries that mean none
        logits = spare.scatter(1, targets.left_out, -torch.inf)
    log_p = chosen - logits.logsumexp(1, keepdim=True)  # (N, K)
    # selected before the product: 0 * inf would be NaN for the placeholder targets of ignored pixels
    terms = torch.where(targets.weights > 0, log_p, 0.0) * targets.weights  # (N, K)
    return WeightedLoss(-terms.sum(), targets.valid.sum())


def prototype_nce(
    embeddings: Tensor,
    known: Prototypes,
    targets: Targets,
    temperature: float,
    unit: bool = False,
    rivals: Tensor | None = None,
    learnt: bool = False,
) -> WeightedLoss:
    """The pixel-to-prototype loss (eq. 4, 7 or 8 by the targets) of embeddings (B, D, h, w).

    The loss divides them by their length, which costs next to nothing here, unless `unit` says that they have unit
    length.  The value is that of `nce(class_logits(pixel_rows(embeddings), ...), targets)`, in chunks of pixels: no
    (N, C) tensor is kept.  The gradient can be taken once; prototypes that are `learnt` receive theirs, others none.

    `rivals` (C, C) bool has in row t the classes that a pull to class t is measured against, t itself among them;
    None means all.  Each target of a pixel is then a quotient of its own.

    Raises ValueError for targets of another number of pixels than the grid has, and for those that are no class.
    """
    pixels = len(embeddings) * embeddings.shape[2:].numel()
    if len(targets.classes) != pixels:
        raise ValueError(
            f"targets of {len(targets.classes):,} pixels for embeddings {tuple(embeddings.shape)} of {pixels:,}; "
            "downsample_labels(labels, stride) takes labels down to their grid"
        )
    expect_labels(targets.classes, len(known.vectors))
    if rivals is None:
        pulls = [Pull(targets.classes, targets.weights, targets.weights.sum(1, keepdim=True), targets.left_out)]
    else:
        columns = zip(targets.classes[..., None].unbind(1), targets.weights[..., None].unbind(1), strict=True)
        pulls = [Pull(classes, weights, weights, targets.left_out) for classes, weights in columns]  # (N, 1) each
    vectors = known.vectors if learnt else known.vectors.detach()
    candidates = Candidates(vectors, known.present, rivals=rivals)
    totals = [chunked_total(embeddings, candidates, pull, temperature, unit) for pull in pulls]
    return WeightedLoss(torch.stack(totals).sum() if len(totals) > 1 else totals[0], targets.valid.sum())


# Other candidates than prototypes


def instance_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float, unit: bool = False) -> WeightedLoss:
    """InfoNCE (eq. 1): each image's key is its positive, the queue its negatives (MoCo).

    `queries` and `keys` (B, D) and `queue` (Q, D) are divided by their length, unless `unit` says that they have unit
    length.  Raises ValueError when queries and keys differ in shape.

    >>> round(float(instance_nce(torch.zeros(2, 4), torch.ones(2, 4), torch.ones(7, 4), 0.2).mean()), 4)  # log 8
    2.0794
    """
    if queries.shape != keys.shape:
        raise ValueError(f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)}: expected a key for each query")
    with torch.autocast(queries.device.type, enabled=False):
        rows, own, others = (_of_unit_length(each, unit) for each in (queries, keys.detach(), queue.detach()))
        positive = (rows * own).sum(1, keepdim=True)  # (B, 1)
        logits = torch.cat([positive, rows @ others.T], 1) / temperature  # (B, 1 + Q)
        losses = logits.logsumexp(1) - logits[:, 0]  # (B,)
        return WeightedLoss(losses.sum(), losses.new_full((), len(losses)))


class NeighbourLoss(NamedTuple):
    """The two losses of queries that have neighbours, each a sum over queries."""

    instances: Tensor  # () float32, with gradient: each query against its key and the queue (eq. 1)
    neighbours: Tensor  # () float32, with gradient: pulled to its neighbours in the queue
    hits: Tensor  # () float32: queries that are more like their key than like any row of the queue


def neighbour_nce(
    queries: Tensor, keys: Tensor, queue: Tensor, neighbours: Tensor, temperature: float
) -> NeighbourLoss:
    """MoCo's loss, and that of the nearest neighbours as further positives (arXiv 2106.05967, eq. 1 and 2).

    `queries` and `keys` (R, D), a key for each query, and `queue` (Q, D), of unit length; `neighbours` (R, k) are rows
    of the queue.  The second loss is - mean_k log softmax over the queue alone: the query's own key does not compete.
    It is 0 for k = 0.
    Logits of queries and queue, which both share, are made and differentiated a chunk of queries at a time.

    Raises ValueError when queries and keys differ in shape, or neighbours are those of other queries.

    >>> zero, one = torch.zeros(2, 4), torch.ones(7, 4)
    >>> found = neighbour_nce(zero, zero, one, torch.tensor([[0, 3], [6, 1]]), 0.2)
    >>> [round(float(loss) / 2, 4) for loss in found[:2]]  # log 8, log 7
    [2.0794, 1.9459]
    """
    if queries.shape != keys.shape or len(neighbours) != len(queries):
        raise ValueError(
            f"queries {tuple(queries.shape)}, keys {tuple(keys.shape)} and neighbours {tuple(neighbours.shape)}: "
            "expected a key and some neighbours for each query"
        )
    with torch.autocast(queries.device.type, enabled=False):
        rows, own, others = queries.float(), keys.detach().float(), queue.detach().float()
        size = min(_ROWS, max(1, _CHUNK_BYTES // (4 * len(others))))
        return NeighbourLoss(*_TwoLosses.apply(rows, own, others, neighbours, temperature, size))  # type: ignore[no-untyped-call]


class _TwoLosses(torch.autograd.Function):
    """Both losses in one pass over the logits; gradients of each are kept, of the rows' size."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, keys: Tensor, queue: Tensor, neighbours: Tensor, temperature: float, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        totals, slopes = rows.new_zeros(3), rows.new_zeros(2, *rows.shape) if ctx.needs_input_grad[0] else None
        room = rows.new_empty(min(size, len(rows)), len(queue))  # the one tensor of this size, for all parts
        for start in range(0, len(rows), size):
            part, own, near = (t[start : start + size] for t in (rows, keys, neighbours))
            positive = (part * own).sum(1, keepdim=True) / temperature  # (n, 1)
            logits = torch.mm(part, queue.T, out=room[: len(part)]).div_(temperature)  # (n, Q)
            top, pulled = logits.amax(1, keepdim=True), logits.gather(1, near)  # (n, 1), (n, k)
            total = logits.sub_(top).exp_().sum(1, keepdim=True)  # (n, 1)
            negatives = total.log() + top  # (n, 1)
            totals[0] += F.softplus(negatives - positive).sum()
            totals[2] += (positive > top).sum()
            if near.shape[1]:
                totals[1] += (negatives[:, 0] - pulled.mean(1)).sum()
            if slopes is None:
                continue
            mean = logits @ queue / total  # (n, D): of the queue, weighted by softmax
            share = torch.sigmoid(negatives - positive)  # (n, 1): what the negatives have of the whole softmax
            slopes[0, start : start + size] = share * (mean - own) / temperature
            if near.shape[1]:
                slopes[1, start : start + size] = (mean - queue[near].mean(1)) / temperature
        ctx.slopes = slopes
        instances, neighbour_total, hits = (total.clone() for total in totals)
        ctx.mark_non_differentiable(hits)
        return instances, neighbour_total, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        slopes: Tensor = ctx.slopes
        return slopes[0] * outputs[0] + slopes[1] * outputs[1], None, None, None, None, None


def pixel_nce(
    queries: Tensor,
    keys: Tensor,
    query_labels: Tensor,
    key_labels: Tensor,
    temperature: float,
    unit: bool = False,
    unit_keys: bool = False,
    classes: int | None = None,
) -> WeightedLoss:
    """The pixel-to-pixel loss within each image, across its two views (eq. 2).

    `queries`, `keys` (B, D, h, w), which are divided by their length unless `unit` says that they have unit length,
    or `unit_keys` that the keys do; labels (B, h, w), -1 where ignored (255 is a class here).  A GPU has to be waited
    for to know which there are, unless `classes` says how many there may be.  A pixel's positives are the key pixels of
    its class in the other view of its image, its candidates all valid key pixels there; pixels without a positive weigh
    nothing.

    The mean over positives of the logits is the logit of their mean, so only the denominator meets every pair, a chunk
    at a time.  The gradient can be taken once.  Raises ValueError when the grids differ, and for labels below -1.
    """
    expect_grid(queries, query_labels)
    expect_grid(keys, key_labels)
    expect_labels(query_labels)
    expect_labels(key_labels)
    if not (unit or unit_keys):
        keys = F.normalize(keys.detach().float(), dim=1, eps=EPS)
    if classes is None:
        known, ranks = torch.unique(key_labels, return_inverse=True)  # (C,), (B, h, w)
        ranks = torch.where(key_labels == IGNORE, IGNORE, ranks)
    else:
        known, ranks = torch.arange(classes, device=key_labels.device), key_labels
    means, _, present = image_means(keys, ranks, len(known))
    place = torch.bucketize(query_labels.flatten(1), known).clamp(max=len(known) - 1)  # (B, N)
    anchors = (known[place] == query_labels.flatten(1)) & present.gather(1, place)  # (B, N)
    mass = anchors.float().view(-1, 1)
    aims = (present.cumsum(1) - 1).clamp(min=0).gather(1, place)  # (B, N): which of the means of the own image
    candidates = Candidates(keys.detach().flatten(2).mT, key_labels.flatten(1) != IGNORE, means)
    total = chunked_total(queries, candidates, Pull(aims.view(-1, 1), mass, mass), temperature, unit)
    return WeightedLoss(total, mass.sum())


def pixel_anchors(query_labels: Tensor, key_labels: Tensor) -> Tensor:
    """Which pixels (B, h, w) have their class in the other view of their image: those that `pixel_nce` weighs.

    Raises ValueError when the numbers of images differ, and for labels below -1.
    """
    if len(query_labels) != len(key_labels):
        raise ValueError(f"labels of {len(query_labels)} and {len(key_labels)} images: expected two views of the same")
    expect_labels(query_labels)
    expect_labels(key_labels)
    anchors, others = query_labels.flatten(1), key_labels.flatten(1)  # (B, N)
    found = (anchors[:, :, None] == others[:, None]).any(2)  # (B, N)
    return (found & (anchors != IGNORE)).view(query_labels.shape)


def region_anchors(labels: Tensor, queues: ClassQueues) -> Tensor:
    """Which pixels (B, h, w) have a class with rows in the queues: those that `region_nce` weighs.

    Raises ValueError for labels that are no class of the queues.
    """
    expect_labels(labels, len(queues.pushed))
    return (labels != IGNORE) & (queues.pushed[labels.clamp(min=0)] > 0)


def region_nce(
    embeddings: Tensor,
    labels: Tensor,
    queues: ClassQueues,
    temperature: float,
    denominator: str = "all",
    unit: bool = False,
) -> WeightedLoss:
    """Pixels against the image-level class embeddings of a region bank (section 3.3's comparison).

    `embeddings` (B, D, h, w) are divided by their length, unless `unit` says that they have unit length; the queues'
    rows are taken as they are.  `labels` (B, h, w).  A pixel's positives are the rows of its class.  With `denominator`
    "all", every row competes with each positive (the multi-positive form of eq. 2); with "negatives", only the rows of
    other classes and the positive itself do (Wang et al., arXiv 2101.11939, eq. 4).  Pixels of a class without rows
    weigh nothing.

    The logits, up to a million a pixel, are made and differentiated a chunk of pixels at a time.
    Raises ValueError when the grids differ, and for labels that are no class of the queues.
    """
    expect_grid(embeddings, labels)
    with torch.autocast(embeddings.device.type, enabled=False):
        anchors = region_anchors(labels, queues)  # (B, h, w)
        if embeddings.is_cuda and denominator == "all":
            return _by_mean_rows(embeddings, labels, anchors, queues, temperature, unit)
        rows, flat = _of_unit_length(pixel_rows(embeddings.float()), unit), labels.flatten()  # (N, D), (N,)
        filled, whole = queues.filled, queues.rows.detach()  # (C, Q), (C, Q, D)
        # what is neither anchor nor region weighs nothing, and on a GPU stays: its number would have to be waited for
        chosen = None if rows.is_cuda else anchors.flatten().nonzero().flatten()
        regions = whole.flatten(0, 1) if chosen is None else whole[filled]  # (R, D)
        numbers = torch.arange(len(filled), device=filled.device)[:, None].expand_as(filled)  # (C, Q)
        classes = numbers.flatten() if chosen is None else numbers[filled]  # (R,)
        form = _against_all if denominator == "all" else _against_negatives

        def loss(part: Tensor, start: int) -> Tensor:
            some = slice(start, start + len(part))
            own = flat[some if chosen is None else chosen[some]]  # (n,)
            logits, positive = part @ regions.T / temperature, own[:, None] == classes  # (n, R)
            if chosen is not None:
                return form(logits, positive).sum()
            there = filled.flatten()
            losses = form(logits.masked_fill(~there, -torch.finfo(logits.dtype).max), positive & there)
            return torch.where(anchors.flatten()[some], losses, 0.0).sum()

        size = max(256 if rows.is_cuda else 1, _CHUNK_BYTES // (4 * max(1, len(regions))))
        total = _in_chunks(rows if chosen is None else rows[chosen], loss, size)
        weight = anchors.sum().to(total.dtype) if chosen is None else total.new_full((), len(chosen))
        return WeightedLoss(total, weight)


def _by_mean_rows(
    embeddings: Tensor, labels: Tensor, anchors: Tensor, queues: ClassQueues, temperature: float, unit: bool
) -> WeightedLoss:
    """`region_nce` where all rows compete: the mean over positives of the logits is the logit of their mean."""
    count = len(embeddings)
    held = queues.pushed.clamp(min=1, max=queues.rows.shape[1])  # (C,)
    means = queues.rows.detach().sum(1) / held[:, None]  # (C, D); empty slots are zeros
    rows, filled = queues.rows.detach().flatten(0, 1), queues.filled.flatten()  # (C Q, D), (C Q,)
    candidates = Candidates(*(tensor.expand(count, *tensor.shape) for tensor in (rows, filled, means)))
    mass = anchors.float().view(-1, 1)
    total = chunked_total(embeddings, candidates, Pull(labels.clamp(min=0).view(-1, 1), mass, mass), temperature, unit)
    return WeightedLoss(total, mass.sum())


def _against_all(logits: Tensor, positive: Tensor) -> Tensor:
    """(n, R) logits and which are positives -> (n,): mean over positives of -log softmax."""
    pulled = torch.where(positive, logits, 0.0).sum(1) / positive.sum(1).clamp(min=1)
    return logits.logsumexp(1) - pulled


def _against_negatives(logits: Tensor, positive: Tensor) -> Tensor:
    """The same with each positive alone against the negatives: mean of log(1 + sum exp(negatives) / exp(positive))."""
    others = logits.masked_fill(positive, -torch.finfo(logits.dtype).max).logsumexp(1, keepdim=True)  # (n, 1)
    return torch.where(positive, F.softplus(others - logits), 0.0).sum(1) / positive.sum(1).clamp(min=1)


def _in_chunks(rows: Tensor, loss: Callable[[Tensor, int], Tensor], size: int) -> Tensor:
    """The sum of `loss(part, start)` over parts of `size` rows; intermediate tensors are those of one part."""
    total: Tensor = _Chunks.apply(rows, loss, size)  # type: ignore[no-untyped-call]
    return total


class _Chunks(torch.autograd.Function):
    """Differentiates each chunk in the forward pass and keeps the gradient, of the rows' size, not the logits."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, loss: Callable[[Tensor, int], Tensor], size: int) -> Tensor:
        total, gradient = rows.new_zeros(()), torch.zeros_like(rows)
        for start in range(0, len(rows), size):
            part = rows[start : start + size].detach().requires_grad_()
            with torch.enable_grad():
                value = loss(part, start)
            (gradient[start : start + size],) = torch.autograd.grad(value, part)
            total += value.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0], None, None
