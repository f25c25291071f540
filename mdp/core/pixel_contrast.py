"""Contrast between pixels of a batch, or against a memory, of which classes are known (Wang et al., arXiv 2101.11939).

Where an image has many pixels of a class some of them are drawn as anchors, half of them hard ones, which the network
gets wrong; anchors of one class attract each other, or rows of a memory, and repel those of other classes.  What the
released code has beyond the paper's abstract, numbers and the rule of drawing among it, is so marked ("code").
Shape legend: B images, C classes, D embedding channels, h x w feature grid, N anchors, R rows of a memory.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.contrast import WeightedLoss
from mdp.core.contrast_memory import ClassAnchors, against_memory
from mdp.core.contrast_mining import Choice
from mdp.core.labels import IGNORE
from mdp.core.processes import Processes

# Anchors


def anchor_groups(labels: Tensor, classes: int, max_views: int) -> Tensor:
    """Which classes of each image give anchors, (B, C) bool: those with more than `max_views` pixels (code).

    >>> anchor_groups(torch.tensor([[[0, 0, 1, -1]]]), 3, 1)
    tensor([[ True, False, False]])
    """
    flat = labels.flatten(1)  # (B, h w)
    pixels = torch.zeros(len(flat), classes + 1, dtype=torch.int64, device=flat.device)
    pixels.scatter_add_(1, torch.where(flat == IGNORE, classes, flat), torch.ones_like(flat))
    return pixels[:, :classes] > max_views


def anchor_views(groups: int, max_samples: int, max_views: int) -> int:
    """How many anchors each image's class gives, where so many groups of the whole batch share `max_samples` (code).

    With more groups than samples there are none, and no loss.

    >>> anchor_views(5, 1024, 100), anchor_views(20, 1024, 100), anchor_views(2000, 1024, 100), anchor_views(0, 1024, 9)
    (100, 51, 0, 0)
    """
    return min(max_views, max_samples // groups) if groups else 0


def draw_anchors(labels: Tensor, wrong: Tensor, groups: Tensor, views: int, rng: torch.Generator) -> Tensor:
    """The pixels of one image that are anchors, (N,) int64 into its grid, class by class.

    `labels` (h, w), `wrong` (h, w) where the network is, `groups` (C,) which classes give anchors.  Of a class half are
    hard, as far as there are so many of either kind, and the other kind fills up (code); without replacement.
    """
    flat, hard = labels.flatten().cpu(), wrong.flatten().cpu()  # (h w,)
    found = [torch.empty(0, dtype=torch.int64)]
    for label in groups.cpu().nonzero().flatten().tolist():
        pixels = (flat == label).nonzero().flatten()  # (n,)
        pixels = pixels[torch.randperm(len(pixels), generator=rng)]
        difficult, easy = pixels[hard[pixels]], pixels[~hard[pixels]]
        first, second = _half(len(difficult), len(easy), views)
        found += [difficult[:first], easy[:second]]
    return torch.cat(found).to(labels.device)


def draw_pixels(labels: Tensor, classes: int, count: int, rng: torch.Generator) -> Tensor:
    """Up to `count` pixels of each class of one image (h, w), (C, count) int64 into its grid; -1 where it has fewer.

    Without replacement, and of the class's own pixels.
    """
    flat = labels.flatten().cpu()  # (h w,)
    order = torch.randperm(len(flat), generator=rng)
    own, place = flat[order].sort(stable=True)  # by class, at random within
    pixels = torch.bincount(own + 1, minlength=classes + 1)  # (C + 1,), ignored ones first
    rank = torch.arange(len(flat)) - (pixels.cumsum(0) - pixels)[own + 1]  # among those of its class
    some = (own != IGNORE) & (rank < count)
    found = torch.full((classes, count), -1)
    found[own[some], rank[some]] = order[place[some]]
    return found.to(labels.device)


def _half(hard: int, easy: int, views: int) -> tuple[int, int]:
    """How many hard and easy ones of so many make up `views`.

    >>> _half(9, 9, 5), _half(1, 9, 5), _half(9, 1, 5), _half(1, 1, 5)
    ((2, 3), (1, 4), (4, 1), (1, 1))
    """
    first = min(hard, max(views // 2, views - easy))
    return first, min(easy, views - first)


# Losses


def batch_contrast(
    rows: Tensor,
    labels: Tensor,
    counts: tuple[int, ...],
    temperature: float,
    processes: Processes,
    images: Tensor | None = None,
    besides: Tensor | None = None,
    related: Tensor | None = None,
) -> WeightedLoss:
    """Anchors against each other, those of all processes: this process's share, and all anchors that count.

    `rows` (N, D) of unit length with gradient and `labels` (N,) are this process's, `counts` how many each has.  For an
    anchor i with others of its class p and those of other classes n the loss is the mean over p of
    -log(e^(s_ip / T) / (e^(s_ip / T) + sum_n e^(s_in / T))).  The gradient goes through both sides of a pair, and adds
    up over processes to that of one that has all anchors.  Anchors that are alone with their class weigh nothing.

    With `images` (N,) only anchors of one image meet.  Rows `besides` (S, D), without gradient, are met by all of them,
    as positives of the classes that `related` (C, S) says.

    >>> from mdp.core.processes import alone
    >>> rows, labels = torch.eye(2)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
    >>> batch_contrast(rows, labels, (4,), 0.5, alone(1)).mean()  # log(1 + 2 e^(-1 / T))
    tensor(0.2395)
    """
    with torch.autocast(rows.device.type, enabled=False):
        start = sum(counts[: processes.rank])
        found = processes.all_rows(rows.float().detach(), counts)  # (N, D), of all; its own rows have the gradient
        whole = torch.cat([found[:start], rows.float(), found[start + len(rows) :]])
        classes = processes.all_rows(labels, counts)  # (N,)
        columns = whole
        alike = classes[:, None] == classes  # (N, N)
        meet = torch.ones_like(alike)
        if images is not None:
            of = processes.all_rows(images, counts)  # (N,)
            meet = of[:, None] == of
        positive = alike & meet & ~torch.eye(len(classes), dtype=torch.bool, device=alike.device)
        negative = meet & ~alike
        if besides is not None and related is not None:
            columns = torch.cat([whole, besides.detach().float()])  # (N + S, D)
            positive = torch.cat([positive, related[classes]], 1)  # (N, N + S)
            negative = torch.cat([negative, ~related[classes]], 1)
        logits = whole @ columns.T / temperature  # (N, N + S)
        others = logits.masked_fill(~negative, -torch.finfo(logits.dtype).max).logsumexp(1, keepdim=True)  # (N, 1)
        losses = torch.where(positive, F.softplus(others - logits), 0.0).sum(1) / positive.sum(1).clamp(min=1)  # (N,)
        total = losses.sum()
        share = total.detach() / len(counts)  # of the value; the gradient is whole
        return WeightedLoss(total - total.detach() + share, positive.any(1).sum().to(total.dtype))


def memory_contrast(
    rows: Tensor,
    labels: Tensor,
    memory: Tensor,
    memory_labels: Tensor,
    temperature: float,
    related: Tensor | None = None,
    choice: Choice | None = None,
) -> WeightedLoss:
    """Anchors (N, D) of unit length against rows of a memory (R, D), which take no gradient; the same loss.

    `labels` (N,), `memory_labels` (R,), where `IGNORE` is a row of no class, and `related` (C, S), which says of which
    classes the last S rows are positives besides, are read: beside rows on a GPU they lie on the CPU, or it waits.
    Anchors of a class that the memory has nothing of weigh nothing.  A `choice` contrasts each anchor with some rows
    only.

    Class by class, so that positives are a few columns and no mask of N x R is needed; logits are made and
    differentiated a chunk of anchors at a time.  The gradient can be taken once.

    >>> memory, of = torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 1])
    >>> memory_contrast(torch.eye(3)[:1], torch.tensor([0]), memory, of, 0.5).mean()  # log(1 + 2 e^(-1 / T))
    tensor(0.2395)
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows, memory = rows.float(), memory.detach().float()
        own = {label: _positives(memory_labels, label, related) for label in torch.unique(labels).tolist()}
        chosen = {label: (labels == label).nonzero().flatten() for label, found in own.items() if len(found)}
        if not chosen:
            return WeightedLoss(0 * rows.sum(), rows.new_zeros(()))
        sizes = [len(found) for found in chosen.values()]
        positives = [own[label] for label in chosen]
        flat = torch.cat([*chosen.values(), *positives]).to(rows.device, non_blocking=True)  # one copy of all
        order, *positives = torch.split(flat, [sum(sizes), *map(len, positives)])
        anchors = list(map(ClassAnchors, sizes, positives))
        choice = choice._replace(draws=choice.draws[order]) if choice else None
        total = against_memory(rows[order], anchors, memory, temperature, choice)
        return WeightedLoss(total, total.new_full((), len(order)))


def _positives(memory_labels: Tensor, label: int, related: Tensor | None) -> Tensor:
    """The rows of a memory that are positives of a class, (P,)."""
    alike = memory_labels == label  # (R,)
    if related is not None and related.shape[1]:
        alike[-related.shape[1] :] |= related[label]
    return alike.nonzero().flatten()
