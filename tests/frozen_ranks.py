"""`mdp retrieve` and `mdp probe` in this process's part of a world: `python -m tests.frozen_ranks OWN FOLDERS OUT`.

What they write, for test_frozen_processes.py to compare: OUT/retrieved, OUT/svm and OUT/sgd.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from mdp.io.processes.world import ALONE, World, joined
from mdp.io.unsupervised import probe, retrieve

# twenty images pass a network in parts of sixteen, and are looked up so
LAYER = {"run": {"workers": 0, "threads": 1}, "model": {"backbone": "resnet18", "width": 8}}


def everything(own: Path, folders: Path, out: Path, world: World = ALONE) -> None:
    """All of it, by all processes of the world together."""
    with (
        patch.object(retrieve, "joined", lambda _: nullcontext(world)),
        patch.object(probe, "joined", lambda _: nullcontext(world)),
    ):  # a process joins the others once
        asked = {"source": "scratch", "size": 64}
        retrieve.run_retrieval(
            retrieve.Retrieval(target=str(own), regions=3, out=out / "retrieved", **asked), LAYER, quiet=True
        )
        probe.run_probe(probe.Probe(target=str(own), classifier="svm", out=out / "svm", **asked), LAYER, quiet=True)
        by_sgd = probe.Probe(folders=folders, classifier="sgd", epochs=2, rate=0.1, out=out / "sgd", **asked)
        probe.run_probe(by_sgd, LAYER, quiet=True)


if __name__ == "__main__":
    with joined(60) as world:
        everything(*map(Path, sys.argv[1:]), world)
