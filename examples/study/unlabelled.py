"""The retrieval tables of docs/unlabelled.md.

    python examples/study/unlabelled.py runs/study/unlabelled > retrieval.json
    python examples/study/unlabelled.py docs/unlabelled/retrieval.json

Of a folder of `unlabelled.sh` it prints what the tables need as JSON, of that JSON the tables: the mean and standard
deviation over seeds, and differences from `moco`, paired by seed, as `mdp compare` has them.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from mdp.core.chance import generator
from mdp.core.comparison import difference
from mdp.io.journal.history import read_history

ROWS = ("moco", "small-views", "constraint", "auto-augment", "neighbours")
CONTROLS = ("scratch", "colors")
TARGETS = ("msrc", "camvid")
PURITY = ("dataset_purity", "folder_purity")


def collect(folder: Path) -> dict[str, Any]:
    """Scores and counts of blocks of images for each target, row and seed, and the purity of neighbours at the end."""
    found: dict[str, Any] = {target: {} for target in TARGETS}
    for target in TARGETS:
        for name in (*ROWS, *CONTROLS):
            where = f"retrieve/{target}-test" if name in ROWS else f"{target}-test"
            runs = [path for path in sorted(folder.glob(f"{name}*")) if (path / where / "scores.json").exists()]
            scores = [json.loads((path / where / "scores.json").read_text()) for path in runs]
            found[target][name] = [{key: of_one[key] for key in ("miou", "blocks")} for of_one in scores]
    found["purity"] = []
    for path in sorted(folder.glob("neighbours-*")):
        curves = read_history(path / "metrics.jsonl").curves
        found["purity"].append({key: curves[("train", key)].values[-20:].mean().item() for key in PURITY})
    return found


def table(found: dict[str, Any], target: str) -> str:
    """What came out on one target."""
    scores = {name: some for name, some in found[target].items() if some}
    lines = [
        f"{target}, test images: mIoU of retrieval in percent, mean ± standard deviation over seeds;",
        "minus moco, paired by seed [95 % bootstrap interval over seeds and blocks of images]",
    ]
    for name, some in scores.items():
        mious = [100 * one["miou"] for one in some]
        spread = f" ± {statistics.stdev(mious):.2f}" if len(mious) > 1 else "       "
        line = f"{name:14} {statistics.mean(mious):6.2f}{spread} ({len(mious)})"
        if name in ROWS[1:]:
            pair = (torch.tensor([one["blocks"] for one in rows]) for rows in (some, scores["moco"]))
            delta = difference(*pair, generator(0, "bootstrap", name, target))
            line += f"   {100 * delta.mean:+5.2f} [{100 * delta.low:+.2f}, {100 * delta.high:+.2f}]"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    asked = Path(sys.argv[1])
    if asked.is_dir():
        print(json.dumps(collect(asked)))
    else:
        raw = json.loads(asked.read_text())
        print("\n\n".join(table(raw, target) for target in TARGETS))
        for key in PURITY:
            shares = [100 * of_run[key] for of_run in raw["purity"]]
            print(f"\n{key}: {statistics.mean(shares):.1f} % of the neighbours, over the last 20 steps")
