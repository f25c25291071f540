"""The step of multi_dataset as one writes it first: loops, a dense bank, masks, every tensor of the loss kept.

It computes what `mdp.core.methods.multi_dataset` does, in the same order, so that the losses of both can be compared.
Shape legend: V = 2 views, B images, C classes, D channels, T batches in the bank, N pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.recipes import MIX, RATE, Run, StepRecipe, joined, made_views, new_pair, placed_
from mdp.core.batches import Batch
from mdp.core.chance import generator
from mdp.core.geometry import downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.mixing import PIXEL, REGION, MixPlan, draw_plan

TAU = 0.07


def naive(recipe: StepRecipe) -> Run:
    """One step; networks, bank and momentum go on from call to call."""
    views, pair, classes = made_views(recipe), new_pair(recipe), recipe.classes
    for network in pair:
        placed_(network, recipe)
    optimizer = torch.optim.SGD(pair.query.parameters(), RATE, 0.9, weight_decay=1e-4)
    stride, step = pair.query.output_stride, 0
    ring = torch.zeros(recipe.bank, classes, recipe.embedding)  # (T, C, D)
    counts = torch.zeros(recipe.bank, classes)  # (T, C)

    def run() -> Tensor:
        nonlocal ring, counts, step
        images, labels = joined(views)
        with torch.no_grad():
            keys = pair.key(images)
        sums, count = loop_sums(keys, downsample_labels(labels, stride), classes)
        ring, counts = torch.cat([ring[1:], sums[None]]), torch.cat([counts[1:], count[None]])
        known = F.normalize(ring.sum(0) / counts.sum(0).clamp(min=1)[:, None], dim=1)  # (C, D)
        rng = generator(2, step)
        mixed = [masked_mix(view, draw_plan(rng, MIX, recipe.images, recipe.crop, recipe.crop)) for view in views]
        queries = pair.query(torch.cat([one[0] for one in mixed])).chunk(2)
        losses, present = [], counts.sum(0) > 0
        for query, (_, first, second, share) in zip(queries, mixed, strict=True):
            both = downsample_labels(first, stride), downsample_labels(second, stride)
            losses.append(two_label_loss(query, known, present, both[0], both[1], share))
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            for key, query in zip(pair.key.parameters(), pair.query.parameters(), strict=True):
                key.data = 0.999 * key.data + 0.001 * query.data
        step += 1
        return loss.detach()

    return run


def loop_sums(keys: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Each class's mean key in each image, summed over images, (C, D), and in how many images it is, (C,)."""
    sums, counts = torch.zeros(classes, keys.shape[1]), torch.zeros(classes)
    for key, label in zip(keys, labels, strict=True):
        for number in label.unique().tolist():
            if number != IGNORE:
                sums[number] += key[:, label == number].mean(1)
                counts[number] += 1
    return sums, counts


def masked_mix(view: Batch, plan: MixPlan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, first and second labels and shares, by float masks over whole images and copies of the partners."""
    others, other_labels = view.images[plan.partner], view.labels[plan.partner]
    mask = torch.zeros_like(view.images[:, :1])  # (B, 1, H, W)
    for i, (top, left, height, width) in enumerate(plan.boxes):
        if plan.kind[i] == REGION:
            mask[i, :, top : top + height, left : left + width] = 1
    images = view.images * (1 - mask) + others * mask
    first = torch.where(mask[:, 0] > 0, other_labels, view.labels)
    share = torch.where(plan.kind == PIXEL, plan.share, 1.0)
    lam = share[:, None, None, None]
    images = lam * images + (1 - lam) * others
    second = torch.where(share[:, None, None] < 1, other_labels, first)
    return images, first, second, share


def two_label_loss(
    query: Tensor, known: Tensor, present: Tensor, first: Tensor, second: Tensor, share: Tensor
) -> Tensor:
    """Two cross entropies over all (N, C) logits, weighed by the shares."""
    rows = query.permute(0, 2, 3, 1).reshape(-1, query.shape[1])  # (N, D)
    logits = (rows @ known.T / TAU).masked_fill(~present, -torch.inf)  # (N, C)
    lam = share[:, None, None].expand(first.shape).flatten()  # (N,)
    total = weight = torch.zeros(())
    for labels, part in ((first.flatten(), lam), (second.flatten(), 1 - lam)):
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        total = total + (losses * part).sum()
        weight = weight + (part * (labels != IGNORE)).sum()
    return total / weight
