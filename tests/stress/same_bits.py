"""What must not change in a refactoring: losses, scores, exported bytes, checks; by the command line alone.

    python tests/stress/same_bits.py OUT.json [--compare BEFORE.json] [--root DATA]

Runs every method and a fine-tuning run for twenty steps on generated data, evaluates, exports, checks, and writes
digests; with --compare it exits with 1 when any of them differs from an earlier file's.  Digests are of one machine
and one version of torch: make both files on the same one.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

METHODS = ("multi_dataset", "pixel_pairs", "region_bank", "moco", "supervised")
OWN = {"moco": ["--set", "method.groups=2"]}  # of a batch of four
SMALL = ["model.width=16", "model.channels=16", "run.workers=0", "run.threads=1"]
TWO = ["--datasets", "shapes-coarse,shapes-fine"]


def mdp(folder: Path, *words: str) -> str:
    """One command, in `folder`; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "mdp", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"mdp {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout.replace(os.getcwd(), "")  # warnings name files of the checkout


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["kind"] == "train"]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def steady(found: object) -> object:
    """JSON without what differs from call to call: paths and times."""
    if isinstance(found, dict):
        return {key: steady(value) for key, value in found.items() if key not in ("checkpoint", "seconds")}
    return [steady(value) for value in found] if isinstance(found, list) else found


def record(folder: Path, root: Path | None) -> dict[str, object]:
    recipe = str(Path("examples/recipes/tiny.yaml").resolve())
    chosen = [word for key in SMALL for word in ("--set", key)]
    common = ["--config", recipe, *chosen, "--steps", "20", "--batch-size", "4", "-q"]
    facts: dict[str, object] = {}
    for method in METHODS:
        out = f"pretrain-{method}"
        mdp(folder, "pretrain", *TWO, "--method", method, *OWN.get(method, []), *common, "--out", out)
        facts[f"losses {method}"] = losses(folder / out)
    mixed = ["--mix", "both", "--sparse", "csc2"]
    mdp(folder, "pretrain", *TWO, *mixed, *common, "--out", "mixed")
    facts["losses mixed"] = losses(folder / "mixed")
    start = ["--init", "pretrain-multi_dataset"]
    mdp(folder, "finetune", "--target", "shapes-target", *start, *common, "--out", "tuned")
    facts["losses finetune"] = losses(folder / "tuned")
    scores = mdp(folder, "eval", "tuned", "--images", "12", "-q", "--json", "--set", "run.threads=1")
    facts["eval"] = digest(json.dumps(steady(json.loads(scores)), sort_keys=True).encode())
    wide = [*TWO, *common, "--steps", "1", "--set", "model.width=64"]
    mdp(folder, "pretrain", *wide, "--out", "wide")  # other libraries have networks of this width only
    for target in ("torchvision", "timm", "mmseg", "safetensors"):
        mdp(folder, "export", "wide", "--to", target, "--out", f"export-{target}")
        for file in sorted((folder / f"export-{target}").iterdir()):
            if file.suffix in (".pth", ".safetensors"):
                facts[f"export {target} {file.name}"] = digest(file.read_bytes())
    checked = mdp(folder, "check", "shapes-coarse", "shapes-target", "--json", "-q")
    facts["check shapes"] = digest(json.dumps(steady(json.loads(checked)), sort_keys=True).encode())
    if root:
        names = ["camvid", "msrc.yaml", "clothing.yaml", "labelmefacade.yaml"]
        for name in names:
            given = name if "." not in name else str(Path("examples/datasets", name).resolve())
            checked = mdp(folder, "check", given, "--root", str(root), "--json", "-q")
            facts[f"check {name}"] = digest(json.dumps(steady(json.loads(checked)), sort_keys=True).encode())
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--root", type=Path, help="Folder with the four real sets, to check those too.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        found = record(Path(folder), asked.root and asked.root.resolve())
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    if asked.compare:
        before = json.loads(asked.compare.read_text())
        differ = [key for key in {**before, **found} if before.get(key) != found.get(key)]
        print("\n".join(f"differs: {key}" for key in differ) or f"{len(found)} facts, all the same")
        sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
