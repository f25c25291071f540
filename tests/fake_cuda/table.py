"""`python -m tests.fake_cuda.table`: what a step of every method asks of a GPU at the paper's size, as Markdown.

ResNet-50 at stride 8, two views of 64 images of 224 pixels, 171 classes, bf16.  A backward pass and the time that a
kernel takes are not seen.
"""

import sys

import torch

from mdp.io.recipe.layers import Layer
from tests.fake_cuda.cases import STEP
from tests.fake_cuda.guard import unavailable
from tests.fake_cuda.mode import DEVICE, FakeCuda
from tests.fake_cuda.report import COPY, WAIT, Report
from tests.whole_steps import MIX, Sizes, Training

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


def main() -> int:
    """Prints a row for each method."""
    if unavailable():
        print(unavailable())
        return 1
    torch.set_num_threads(1)
    print("| method | waits | blocking copies | launches |\n| --- | --- | --- | --- |")
    for name, method in METHODS.items():
        found = asked(method)
        print(
            f"| {name} | {found.count(WAIT, STEP)} | {found.count(COPY, STEP)} | {found.launches_in(STEP):,} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
