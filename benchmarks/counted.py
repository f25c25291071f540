"""A step's work and traffic, counted from the code: FLOPs, and bytes between processes and in memory.

`python -m benchmarks.counted` prints what docs/scale.md reasons from.  A multiplication and an addition are two FLOPs.
Shape legend: V = 2 views, B images a process, C classes, D channels, T batches in the bank, n processes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mdp.core.chance import generator
from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.methods import Data, multi_dataset
from mdp.core.networks import EmbeddingNetwork, NetworkSettings, build_embedding_network
from mdp.io.datasets import ade20k, coco_stuff, voc

VIEWS = 2
EPOCHS = 200
INSTEAD = "were the whole batch gathered"  # in place of the partners: not part of a step
IMAGES = voc.SPLITS["trainaug"] + ade20k.SPLITS["train"]  # the union that the paper's longer runs see
CLASSES = len(voc.LABELS.classes) + len(ade20k.LABELS.classes)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of one step with so many images on each of n processes."""

    images: int
    crop: int
    classes: int
    embedding: int
    parameters: int
    norm_layers: int
    norm_channels: int
    pixels: int  # embeddings of all views of one process
    forward_flops: int  # of one view of one image
    step_flops: int  # of one process
    loss_flops: int  # of which the loss and the class sums
    gradient_bytes: int  # all-reduced, with the running statistics
    class_sum_bytes: int  # all-reduced
    norm_bytes: int  # all-gathered and all-reduced by SyncBatchNorm
    partner_bytes: int  # received for mixing
    input_bytes: int  # copied to the device, uint8 images and int16 labels
    bank_bytes: int  # resident, for each batch that the bank keeps


def count(
    settings: NetworkSettings, images: int = 64, crop: int = 224, classes: int = CLASSES, embedding: int = 256
) -> Counts:
    """The counts of a step of multi_dataset; nothing is computed."""
    network, forward, backward = _passes(settings, embedding, crop)
    side = -(-crop // network.output_stride)
    pixels = VIEWS * images * side**2
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    channels = sum(norm.num_features for norm in norms)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    loss = 4 * pixels * embedding * classes + 2 * pixels * embedding  # logits, their gradient; a sum of keys
    picture = crop * crop
    method = multi_dataset.Settings(embedding=embedding, bank_batches=2)
    shorter = multi_dataset.Settings(embedding=embedding, bank_batches=1)
    data = Data(LabelUnion([LabelSpace(name="union", classes=tuple(map(str, range(classes))))]), images, 1)
    return Counts(
        images=images,
        crop=crop,
        classes=classes,
        embedding=embedding,
        parameters=parameters,
        norm_layers=len(norms),
        norm_channels=channels,
        pixels=pixels,
        forward_flops=forward,
        step_flops=VIEWS * images * (2 * forward + backward) + loss,  # keys, queries, and the queries' backward pass
        loss_flops=loss,
        gradient_bytes=4 * (parameters + 2 * 2 * channels),  # means and variances of query and key encoder
        class_sum_bytes=classes * (4 * embedding + 8),
        norm_bytes=4 * (2 * (2 * channels + len(norms)) + 2 * channels),  # both encoders' forward, one backward
        partner_bytes=VIEWS * images * (4 * 3 + 8) * picture,
        input_bytes=VIEWS * images * (3 + 2) * picture,
        bank_bytes=multi_dataset.state_bytes(method, data) - multi_dataset.state_bytes(shorter, data),
    )


@cache
def _passes(settings: NetworkSettings, embedding: int, crop: int) -> tuple[EmbeddingNetwork, int, int]:
    """The network, without memory, and the FLOPs of one image's forward and backward pass."""
    with torch.device("meta"):
        network = build_embedding_network(settings, embedding, 512, generator(0))
    images = torch.empty(2, 3, crop, crop, device="meta")
    with FlopCounterMode(display=False) as forward:
        queries: Tensor = network(images, unit=False)
    with FlopCounterMode(display=False) as backward:
        queries.sum().backward()  # type: ignore[no-untyped-call]
    return network, forward.get_total_flops() // 2, backward.get_total_flops() // 2


def ring_bytes(size: int, processes: int) -> float:
    """Bytes that each process sends in a ring all-reduce of `size` bytes: 2 (n - 1) / n of them.

    >>> ring_bytes(100, 1), ring_bytes(100, 4)
    (0.0, 150.0)
    """
    return 2 * (processes - 1) / processes * size


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices and links as docs/scale.md assumes them; public figures, and shares of them that runs reach."""

    tflops: float = 312.0  # dense bf16 of an A100, its data sheet
    utilisation: float = 0.35  # assumed: convolutional networks in bf16 reach 0.25 to 0.45
    inside: float = 200e9  # bytes a second that an all-reduce gets over NVLink within a machine; of 300 each way
    between: float = 20e9  # over one 200 Gb/s InfiniBand port for each device; of 25
    latency: float = 30e-6  # seconds of one collective call among 64 devices
    devices: int = 8  # in a machine


def step_seconds(counts: Counts, machine: Machine, processes: int) -> dict[str, float]:
    """The parts of a step on so many devices, in seconds: reasoned, not measured."""
    link = machine.inside if processes <= machine.devices else machine.between
    several = processes > 1
    return {
        "compute": counts.step_flops / (machine.tflops * 1e12 * machine.utilisation),
        "gradients": ring_bytes(counts.gradient_bytes, processes) / link,
        "class sums": several * 3 * machine.latency + ring_bytes(counts.class_sum_bytes, processes) / link,
        "SyncBatchNorm": several * 3 * counts.norm_layers * machine.latency,
        "partners": several * counts.partner_bytes / link,
        INSTEAD: (processes - 1) * counts.partner_bytes / link,
    }


def time_table(counts: Counts, machine: Machine) -> str:
    """Rows of Markdown: the parts of a step in milliseconds on 1, 8 and 64 devices."""
    rows = [f"| {counts.images} images a device, ms | 1 device | 8 devices | 64 devices |", "|---|---|---|---|"]
    columns = [step_seconds(counts, machine, processes) for processes in (1, 8, 64)]
    rows += [f"| {name} | {' | '.join(f'{1000 * column[name]:.1f}' for column in columns)} |" for name in columns[0]]
    return "\n".join(rows)


def count_table(counts: Sequence[Counts]) -> str:
    """Rows of Markdown: every counted number, a column for each number of images a device."""
    names = [name for name in asdict(counts[0]) if name != "images"]
    rows = [f"| | {' | '.join(f'{one.images} images a device' for one in counts)} |", f"|---{'|---' * len(counts)}|"]
    rows += [
        f"| {name.replace('_', ' ')} | {' | '.join(f'{getattr(one, name):,}' for one in counts)} |" for name in names
    ]
    return "\n".join(rows)


def bank_table() -> str:
    """Rows of Markdown: the memory of a bank that keeps one epoch, by images a step."""
    rows = [f"| images a step | T, C = {CLASSES} | MB | T, C = 342 | MB |", "|---|---|---|---|---|"]
    for batch in (64, 512, 4096):
        cells = [f"{batch:,}"]
        for images, classes in ((IMAGES, CLASSES), (IMAGES + coco_stuff.SPLITS["train"], 342)):
            space = LabelSpace(name="union", classes=tuple(map(str, range(classes))))
            data = Data(LabelUnion([space]), batch, images // batch)
            size = multi_dataset.state_bytes(multi_dataset.Settings(), data)
            cells += [f"{data.epoch_batches:,}", f"{size / 1e6:,.0f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def hours(counts: Counts, machine: Machine, processes: int) -> float:
    """VOC + ADE20K, 200 epochs, were nothing hidden behind anything else; without the loader."""
    parts = step_seconds(counts, machine, processes)
    steps = EPOCHS * (IMAGES // (counts.images * processes))
    return steps * sum(seconds for name, seconds in parts.items() if name != INSTEAD) / 3600


def hours_table(counts: Sequence[Counts], machine: Machine) -> str:
    """Rows of Markdown: steps and hours of the paper's longer run."""
    rows = ["| devices | images a device | images a step | steps an epoch | hours |", "|---|---|---|---|---|"]
    for one in counts:
        for processes in (1, 8, 64):
            batch = one.images * processes
            cells = (processes, one.images, f"{batch:,}", IMAGES // batch, f"{hours(one, machine, processes):.1f}")
            rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def tables() -> list[str]:
    """Everything that docs/scale.md quotes."""
    machine, settings = Machine(), NetworkSettings()
    counts = [count(settings, images) for images in (64, 8)]
    return [
        f"VOC + ADE20K: {IMAGES:,} images, {CLASSES} classes.",
        count_table(counts),
        *(time_table(one, machine) for one in counts),
        hours_table(counts, machine),
        bank_table(),
    ]


if __name__ == "__main__":
    print("\n\n".join(tables()))
