"""What a step moves and computes, counted from the code: FLOPs, and bytes between processes and in memory.

`python -m benchmarks.counted` prints what docs/scale.md reasons from.  A multiplication and an addition are two FLOPs.
Shape legend: V = 2 views, B images a process, C classes, D channels, T batches in the bank, n processes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mdp.core.chance import generator
from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.methods import Data, multi_dataset
from mdp.core.networks import EmbeddingNetwork, NetworkSettings, build_embedding_network
from mdp.io.datasets import ade20k, voc

VIEWS = 2
EPOCHS = 200
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
    gathered_bytes: int  # what gathering the whole batch would have received, for each process of the run
    input_bytes: int  # copied to the device, uint8 images and int16 labels
    bank_bytes: int  # resident, for each batch that the bank keeps


def count(
    settings: NetworkSettings, images: int = 64, crop: int = 224, classes: int = CLASSES, embedding: int = 256
) -> Counts:
    """The counts of a step of multi_dataset; nothing is computed."""
    with torch.device("meta"):
        network = build_embedding_network(settings, embedding, 512, generator(0))
    forward, backward = _flops(network, crop)
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
        gathered_bytes=VIEWS * images * (4 * 3 + 8) * picture,
        input_bytes=VIEWS * images * (3 + 2) * picture,
        bank_bytes=multi_dataset.state_bytes(method, data) - multi_dataset.state_bytes(shorter, data),
    )


@cache
def _flops(network: EmbeddingNetwork, crop: int) -> tuple[int, int]:
    """FLOPs of one image's forward and backward pass."""
    images = torch.empty(2, 3, crop, crop, device="meta")
    with FlopCounterMode(display=False) as forward:
        queries: Tensor = network(images, unit=False)
    with FlopCounterMode(display=False) as backward:
        queries.sum().backward()  # type: ignore[no-untyped-call]
    return forward.get_total_flops() // 2, backward.get_total_flops() // 2


def ring_bytes(size: int, processes: int) -> float:
    """What each process sends in a ring all-reduce of `size` bytes: 2 (n - 1) / n of them.

    >>> ring_bytes(100, 1), ring_bytes(100, 4)
    (0.0, 150.0)
    """
    return 2 * (processes - 1) / processes * size


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What docs/scale.md assumes of devices and links; public figures, and shares of them that runs reach."""

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
        "whole batch instead": (processes - 1) * counts.gathered_bytes / link,
    }


def table(counts: Counts, machine: Machine) -> list[str]:
    """Rows of Markdown: the parts of a step in milliseconds on 1, 8 and 64 devices."""
    rows = ["| part of a step, ms | 1 device | 8 devices | 64 devices |", "|---|---|---|---|"]
    columns = [step_seconds(counts, machine, processes) for processes in (1, 8, 64)]
    rows += [f"| {name} | {' | '.join(f'{1000 * column[name]:.1f}' for column in columns)} |" for name in columns[0]]
    return rows


def lines(counts: Counts) -> Mapping[str, str]:
    """The counted numbers as text, by name."""
    return {name.replace("_", " "): f"{value:,}" for name, value in asdict(counts).items()}


def main() -> None:
    """Prints everything."""
    counts, machine = count(NetworkSettings()), Machine()
    print(f"VOC + ADE20K: {IMAGES:,} images, {CLASSES} classes")
    for name, value in lines(counts).items():
        print(f"{name}: {value}")
    print("\n".join(table(counts, machine)))


if __name__ == "__main__":
    main()
