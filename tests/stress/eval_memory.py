"""Memory that inference takes beyond network and image: `python -m tests.stress.eval_memory`.

Looks for a peak above `eval.max_memory`, of DeepLab with ResNet-50 at stride 8 on an image of 2048 x 1024, whole and in
windows, with 171 classes, whose scores alone would take 1.4 GB.  Every case is a process of its own; exit code 1 when
one takes more than it may.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

from mdp.core.networks import NetworkSettings, build_segmentor
from mdp.io.inference.predict import predict
from mdp.io.recipe.settings import EvalSettings, bytes_of

CASES = ("whole", "slide", "slide with flip", "slide at 0.5 and 1")


def peak() -> int:
    """The most memory that was resident so far, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def settings_of(case: str, limit: str | None, window: tuple[int, int]) -> EvalSettings:
    """The inference settings of a case."""
    return EvalSettings(
        mode=case.partition(" ")[0],
        window=window,
        scales=(0.5, 1.0) if "0.5" in case else (1.0,),
        flip="flip" in case,
        max_memory=limit,
    )


def extra(case: str, limit: str | None, small: bool) -> tuple[int, float]:
    """Bytes beyond what was there before, and seconds, of one prediction in this process."""
    size, window = ((256, 512), (128, 256)) if small else ((1024, 2048), (512, 1024))
    network = NetworkSettings(backbone="resnet18", width=8, channels=16) if small else NetworkSettings()
    segmentor = build_segmentor(network, 171, torch.Generator().manual_seed(0)).eval()
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before, begun = peak(), time.monotonic()
    predict(segmentor, image, settings_of(case, limit, window), torch.device("cpu"))
    return peak() - before, time.monotonic() - begun


def main() -> int:
    """Every case in a process of its own; or, as such a process, one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", default="2GB")
    parser.add_argument("--small", action="store_true", help="a small network and image, which take seconds")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        torch.set_num_threads(1)
        taken, seconds = extra(asked.one, asked.limit, asked.small)
        print(f"{asked.one:<22}{taken / 1e6:>8.0f} MB beyond network and image, {seconds:.0f} s", flush=True)
        return int(taken > bytes_of(asked.limit))
    own = [sys.executable, "-m", "tests.stress.eval_memory", "--limit", asked.limit, *["--small"] * asked.small]
    return max(subprocess.run([*own, "--one", case], check=False).returncode for case in asked.cases)


if __name__ == "__main__":
    sys.exit(main())
