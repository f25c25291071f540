"""`python -m tests.fake_cuda.table`: what a step of every method asks of a GPU at the paper's size, as Markdown.

ResNet-50 at stride 8, two views of 64 images of 224 pixels, 171 classes, bf16.  A backward pass and the time that a
kernel takes are not seen.  What the host takes is estimated on a CPU, from the same step, its backward pass too, on
tensors so small that most of the time goes into calling operations.
"""

import sys
import time

import torch

from mdp.io.recipe.layers import Layer
from tests.fake_cuda.cases import STEP
from tests.fake_cuda.guard import unavailable
from tests.fake_cuda.mode import DEVICE, FakeCuda
from tests.fake_cuda.report import COPY, WAIT, Report
from tests.whole_steps import MIX, NARROW, Sizes, Training, method_layer

METHODS: dict[str, Layer] = {
    "multi_dataset, mix": {"name": "multi_dataset", "mix": MIX, "bank_batches": 8},
    **{
        name: {"name": name}
        for name in (
            "region_bank",
            "pixel_pairs",
            "moco",
            "knn_moco",
            "supervised",
            "pass_s",
            "swav",
            "pixel_attention",
        )
    },
}
PAPER = Sizes(model={}, batch=64, crop=224, classes=171)


def asked(method: Layer) -> Report:
    """Two steps of it."""
    with (mode := FakeCuda()) as report:
        training = Training(method, DEVICE, {"precision": "bf16"}, PAPER)
        mode.learns(training.run.trainee.network)
        training.advance()
        with report.in_phase(STEP):
            training.advance()
    return report


def host_ms(method: Layer) -> float:
    """Milliseconds of CPU time of a step of next to no work, on one thread: the first quartile of twelve."""
    small = method_layer(method["name"]) | method
    training = Training(small, torch.device("cpu"), {}, Sizes(model={**NARROW, "backbone": "resnet50"}))
    taken = []
    for _ in range(15):  # the first three warm up
        begin = time.process_time()
        training.advance()
        taken.append(1000 * (time.process_time() - begin))
    return sorted(taken[3:])[3]


def main() -> int:
    """Prints a row for each method."""
    if unavailable():
        print(unavailable())
        return 1
    torch.set_num_threads(1)
    print("| method | waits | blocking copies | launches | host ms |\n| --- | --- | --- | --- | --- |")
    for name, method in METHODS.items():
        found = asked(method)
        print(
            f"| {name} | {found.count(WAIT, STEP)} | {found.count(COPY, STEP)} | {found.launches_in(STEP):,} "
            f"| {host_ms(method):.0f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
