"""Convolutions of few channels that corrupt memory: `python -m tests.stress.small_convolutions`.

Looks for shapes whose forward and backward passes in channels_last end the process, among them the fault that
`mdp/core/networks/memory_layout.py` keeps networks away from, with all instructions of this CPU and with those of AVX2
alone.  Every shape is a process of its own, forked, in which glibc looks at the ends of its blocks where it can.  Exit
code 1 when a shape dies that the product lets into channels_last.  Needs Linux.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from mdp.core.networks.memory_layout import unsafe_in_channels_last

WATCHED = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}  # without that library, ld.so only warns
PASSES = 30  # what is overwritten shows when its neighbour is freed: not always the first time
SECONDS = 30  # a broken heap may also stand still


class Shape(NamedTuple):
    """A convolution and its input."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    groups: int
    images: int
    height: int
    width: int


KNOWN = (Shape(4, 8, 1, 2, 1, 1, 8, 8, 8), Shape(8, 8, 1, 2, 1, 1, 8, 48, 48))


def layer_of(shape: Shape) -> nn.Conv2d:
    padding = shape.dilation * (shape.kernel // 2)
    return nn.Conv2d(
        shape.inputs, shape.outputs, shape.kernel, shape.stride, padding, shape.dilation, shape.groups, bias=False
    )


def shapes(count: int, seed: int) -> Iterator[Shape]:
    """Known to die with AVX2 and with AVX-512, then at random: plain, in two groups, and a group a channel."""
    yield from KNOWN
    rng = random.Random(seed)
    for _ in range(count):
        kernel = rng.choice((1, 1, 3, 7))
        inputs, outputs = rng.randint(1, 16), rng.randint(1, 32)
        groups = rng.choice((1, 1, 2, inputs))
        inputs, outputs = (
            (inputs, inputs * rng.choice((1, 2))) if groups == inputs else (inputs * groups, outputs * groups)
        )
        side = rng.choice((17, 17, 64))  # the kernel that is at fault with AVX-512 takes larger maps only
        height = rng.randint(1, side)
        width = rng.choice((height, rng.randint(1, side)))
        dilation = rng.choice((1, 2)) if kernel == 3 else 1
        yield Shape(inputs, outputs, kernel, rng.choice((1, 2)), dilation, groups, rng.randint(1, 8), height, width)


def train(shape: Shape) -> None:
    layer = layer_of(shape).to(memory_format=torch.channels_last)
    for _ in range(PASSES):
        images = torch.randn(shape.images, shape.inputs, shape.height, shape.width)
        images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
        layer(images).sum().backward()


def survives(shape: Shape) -> bool:
    """Whether a process of its own comes to the end of it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what glibc says when it finds damage
        signal.alarm(SECONDS)
        train(shape)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def scan(count: int, seed: int) -> int:
    """Says what died in this process's children; how many of it were not expected to."""
    torch.set_num_threads(1)  # a fork takes one thread along
    died = [shape for shape in shapes(count, seed) if not survives(shape)]
    kept_out = [shape for shape in died if unsafe_in_channels_last(layer_of(shape))]
    allowed = [shape for shape in died if shape not in kept_out]
    channels = Counter(shape.inputs // shape.groups for shape in kept_out)
    print(
        f"{len(died)} of {len(KNOWN) + count} shapes died, {len(kept_out)} of them kept out of channels_last;", end=" "
    )
    print("by input channels of a group:", dict(sorted(channels.items())))
    for shape in allowed:
        print(f"DIED, and is let into channels_last: {shape}")
    return len(allowed)


def main() -> int:
    """Both sets of instructions, each in a process with glibc's checks; or, as such a process, one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1500, help="shapes at random for each set of instructions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return int(scan(asked.count, asked.seed) > 0)
    failed = 0
    for isa in ("ALL", "AVX2"):
        print(f"{isa}: ", end="", flush=True)
        command = [sys.executable, "-m", "tests.stress.small_convolutions", "--one"]
        command += ["--count", str(asked.count), "--seed", str(asked.seed)]
        environment = {**os.environ, **WATCHED, "ONEDNN_MAX_CPU_ISA": isa}
        failed += subprocess.run(command, env=environment, check=False).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
