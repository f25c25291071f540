"""`python -m tests.gpu.parts NAME`: one part in this process, its findings added to a file; the runner starts it."""

import argparse
import importlib
import os
import sys
from pathlib import Path

import torch

import mdp
from tests.gpu.findings import Findings
from tests.gpu.parts import SECONDS


def environment(device: torch.device) -> dict[str, object]:
    """What the figures depend on."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "CPU",
        "memory_GiB": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1) if cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "mdp": mdp.__version__,
    }


def main() -> int:
    """Runs the part; an error that it does not expect is a finding as well."""
    words = argparse.ArgumentParser()
    words.add_argument("part", choices=list(SECONDS))
    words.add_argument("--device", required=True)
    words.add_argument("--findings", type=Path, required=True)
    words.add_argument("--quick", action="store_true")
    given = words.parse_args()
    findings, device = Findings(given.part, given.findings), torch.device(given.device)
    with findings.going_on("runs to its end"):
        findings.figure("environment", **environment(device))
        importlib.import_module(f"tests.gpu.parts.{given.part}").check(findings, device, given.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
