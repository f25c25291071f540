"""Losses, class sums, photometry and scores on the device, against float64 or against the CPU."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.gpu import tf32
from mdp.core.autoaugment import draw_auto
from mdp.core.autoaugment_batched import apply_auto_batch
from mdp.core.bank_entries import BLOCK
from mdp.core.chance import generator
from mdp.core.contrast import pixel_nce, prototype_nce, region_nce
from mdp.core.metrics import confusion_matrix
from mdp.core.networks.batchnorm import by_groups_, in_groups, over_processes_
from mdp.core.photometry import PhotometrySettings, apply_photometry, draw_photometry, normalise, stack_draws
from mdp.core.prototype_bank import ClassSums, Prototypes, class_sums, empty_bank, hold_rows, pack_bank, push
from mdp.core.queues import ClassQueues
from mdp.core.targets import (
    Targets,
    hard_targets,
    mixed_targets,
    prototype_similarity,
    relaxed_targets,
    sparse_targets,
)
from mdp.core.upsampling import upsampled_argmax
from tests.gpu.findings import Findings

CLASSES, CHANNELS, SIDE, TAU = 171, 256, 28, 0.07
LIMITS = {torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
CPU = torch.device("cpu")


def check(findings: Findings, device: torch.device, quick: bool) -> None:
    """All of it, TF32 off."""
    images = 4 if quick else 16
    rng = inputs.rng_of(0)
    raw = inputs.embeddings(rng, images, CHANNELS, SIDE, SIDE)
    first, second = (inputs.label_maps(rng, images, SIDE, SIDE, CLASSES) for _ in range(2))
    known = inputs.prototypes(rng, CLASSES, CHANNELS)
    with tf32(False):
        for name, targets in forms(first, second, torch.rand(images, generator=rng), known).items():
            _prototype_loss(findings, name, raw, known, targets, device)
        unit = F.normalize(raw, dim=1)
        _class_sums(findings, unit, first, device)
        _bank(findings, device)
        _other_losses(findings, unit, first, second, device)
        _batchnorm(findings, device)
        _photometry(findings, device)
        _scores(findings, device)


def forms(first: Tensor, second: Tensor, share: Tensor, known: Prototypes) -> dict[str, Targets]:
    """The targets in each of their forms."""
    hard, mixed = hard_targets(first), mixed_targets(first, second, share)
    return {
        "hard": hard,
        "mixed": mixed,
        "csc2": sparse_targets(mixed, prototype_similarity(mixed, known), known, 3, 0.1),
        "csc1": relaxed_targets(hard, prototype_similarity(hard, known), known, 3),
    }


def _plain_loss(leaf: Tensor, known: Prototypes, targets: Targets) -> Tensor:
    """The prototype loss written anew from its equation, in float64 on the CPU."""
    rows = F.normalize(leaf, dim=1).flatten(2).transpose(1, 2).reshape(-1, leaf.shape[1])  # (N, D)
    similar = rows @ known.vectors.double().T / TAU  # (N, C)
    logits = similar.masked_fill(~known.present, -torch.inf)
    if targets.left_out is not None:  # C stands for none
        logits = F.pad(logits, (0, 1), value=-torch.inf).scatter(1, targets.left_out, -torch.inf)
    log_p = similar.gather(1, targets.classes) - logits.logsumexp(1, keepdim=True)  # (N, K)
    return -(torch.where(targets.weights > 0, log_p, 0.0) * targets.weights.double()).sum()


def _prototype_loss(
    findings: Findings, name: str, raw: Tensor, known: Prototypes, targets: Targets, device: torch.device
) -> None:
    """Value and gradient in both layouts and every precision."""
    leaf = raw.double().requires_grad_()
    value = _plain_loss(leaf, known, targets)
    (slope,) = torch.autograd.grad(value, leaf)
    left_out = None if targets.left_out is None else targets.left_out.to(device)
    classes, weights, valid = (tensor.to(device) for tensor in targets[:3])
    there = Targets(classes, weights, valid, left_out)
    prototypes = Prototypes(*(tensor.to(device) for tensor in known))
    for layout, memory_format in inputs.LAYOUTS.items():
        for dtype, limit in LIMITS.items():
            embeddings = raw.to(device, dtype).contiguous(memory_format=memory_format).requires_grad_()
            total = prototype_nce(embeddings, prototypes, there, TAU, unit=False).total
            (gradient,) = torch.autograd.grad(total, embeddings)
            what = f"prototype_nce {name} {str(dtype).removeprefix('torch.')} {layout}"
            findings.near(what, total, value, limit)
            findings.near(f"{what} gradient", gradient, slope, limit)


def _class_sums(findings: Findings, unit: Tensor, labels: Tensor, device: torch.device) -> None:
    there, exact = class_sums(unit.to(device), labels.to(device), CLASSES), class_sums(unit.double(), labels, CLASSES)
    findings.near("class_sums", there.sums, exact.sums, 1e-5)
    findings.check("class_sums counts", bool((there.counts.cpu() == exact.counts).all()))


def _bank(findings: Findings, device: torch.device) -> None:
    """A bank on the device, told its rows by who knows them, and one on a CPU: float64 totals of the same additions."""
    rng, size = inputs.rng_of(6), 2 * BLOCK
    here, there = (empty_bank(CLASSES, CHANNELS, size, on) for on in (CPU, device))
    for _ in range(size + BLOCK):
        counts = torch.randint(1, 5, (CLASSES,), generator=rng) * (torch.rand(CLASSES, generator=rng) < 0.2)
        batch = ClassSums(torch.randn(CLASSES, CHANNELS, generator=rng) * counts[:, None], counts)
        here = push(here, batch)
        there = hold_rows(push(there, ClassSums(*(part.to(device) for part in batch))), int((counts > 0).sum()))
    ours, theirs = pack_bank(here), pack_bank(there)
    differ = [name for name in ours if not torch.equal(ours[name], theirs[name].cpu())]
    held = sum(part.nbytes for entry in there.window for part in entry[:3] if isinstance(part, Tensor))
    findings.check("bank of rows, bits of the CPU's", not differ, differ=",".join(differ) or "none", MiB=held / 2**20)


def _other_losses(findings: Findings, unit: Tensor, first: Tensor, second: Tensor, device: torch.device) -> None:
    """The losses of other methods, on the device and on the CPU."""
    rows = F.normalize(torch.randn(CLASSES, 8, CHANNELS, generator=generator(5)), dim=2)  # (C, Q, D)

    def pixels(on: torch.device) -> Tensor:
        return pixel_nce(unit.to(on), unit.roll(1, 2).to(on), first.to(on), second.to(on), TAU).total

    def regions(on: torch.device) -> Tensor:
        queues = ClassQueues(rows.to(on), torch.full((CLASSES,), 8, device=on))
        return region_nce(unit.to(on), first.to(on), queues, TAU).total

    losses: dict[str, Callable[[torch.device], Tensor]] = {"pixel_nce": pixels, "region_nce": regions}
    for name, loss in losses.items():
        findings.near(name, loss(device), loss(CPU), 2e-5)


def _batchnorm(findings: Findings, device: torch.device) -> None:
    """BatchNorm by sums over processes, here of one, in every precision; and by groups of images."""
    exact, outer = (torch.randn(8, 16, 9, 11, generator=generator(number), dtype=torch.float64) for number in (8, 9))
    for layout, memory_format in inputs.LAYOUTS.items():
        for dtype, limit in LIMITS.items():
            images, weights = (t.to(dtype).contiguous(memory_format=memory_format) for t in (exact, outer))
            expected = _normalised(nn.BatchNorm2d(16).double(), images.double(), weights.double())
            norm = nn.Sequential(nn.BatchNorm2d(16))
            over_processes_(norm, torch.clone)
            found = _normalised(norm.to(device), images.to(device), weights.to(device))
            for name, own, other in zip(("", " gradient"), found, expected, strict=True):
                findings.near(f"BatchNorm over processes {dtype} {layout}{name}", own, other, limit)
    grouped = nn.Sequential(nn.BatchNorm2d(16))
    by_groups_(grouped)
    (at_once,) = in_groups(grouped.to(device), lambda part: (grouped(part),), exact.float().to(device), 3)
    each = [nn.functional.batch_norm(part, None, None, training=True) for part in exact.tensor_split(3)]
    findings.near("BatchNorm by groups", at_once, torch.cat(each), LIMITS[torch.float32])


def _normalised(norm: nn.Module, images: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the gradient of the images."""
    leaf = images.clone().requires_grad_()
    found = norm(leaf)
    (found * weights).sum().backward()
    assert leaf.grad is not None
    return found, leaf.grad


def _photometry(findings: Findings, device: torch.device) -> None:
    draws = stack_draws([draw_photometry(generator(number), PhotometrySettings()) for number in range(32)])
    images = torch.randint(0, 256, (32, 3, 96, 96), generator=generator(6)).to(torch.uint8)
    there, here = (normalise(apply_photometry(images.to(on), draws)).cpu() for on in (device, CPU))
    gap = float((there - here).abs().max())
    findings.check("photometry, largest difference", gap < 1e-3, gap=gap)
    autos = stack_draws([draw_auto(generator(number)) for number in range(32)])
    there, here = (apply_auto_batch(images.to(on), autos).cpu() for on in (device, CPU))
    findings.check("AutoAugment, the same bytes", torch.equal(there, here))


def _scores(findings: Findings, device: torch.device) -> None:
    """Classes of upsampled logits, and how they are counted."""
    logits = torch.randn(1, 150, 64, 86, generator=generator(7))
    there, here = (upsampled_argmax(logits.to(on), (512, 683)).cpu() for on in (device, CPU))
    share = float((there != here).float().mean())
    findings.check("upsampled_argmax, share of pixels that differ", share < 1e-4, share=share)
    counts = confusion_matrix(there.to(device), here.to(device), 150).cpu()
    findings.check("confusion_matrix", bool((counts == confusion_matrix(there, here, 150)).all()))
