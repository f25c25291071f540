"""Every setting with odd values, and at its bounds, in real runs: a run, or one line with the exit code of the design.

    python -m tests.stress.odd_settings [--only method]

Looks for tracebacks, messages of more than one line, and values that pass the settings and fail in the run.  All the
values of tests/test_bounds.py go through `mdp pretrain --dry-run` from a file; every number goes at its least and its
greatest value through a run of two steps, but for those that only ask for more memory, processes or time.
Exit code 1 when something is wrong.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from click.testing import CliRunner

from mdp.cli import cli
from mdp.core.bounds import bounds_of
from mdp.io.errors import MdpError
from mdp.io.files.strict_yaml import dump_yaml
from mdp.io.recipe.layers import Layer, merge, nest
from mdp.io.recipe.methods import find_method, method_names
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.small_runs import TINY
from tests.test_bounds import ODD, SECTIONS, inside, settings

COSTLY = (  # at their greatest
    "epochs", "steps", "batch_size", "crop", "scale", "ratio", "window", "stride", "width", "channels", "dilations",
    "embedding", "hidden", "queue", "workers", "threads", "bank_batches", "bank_images", "accumulate", "groups",
)  # fmt: skip
EXPECTED = {2, 3, 4, 5, 6}


def dry_runs(only: str) -> Iterator[str]:
    """The keys and values that end in anything but a description or one line with exit code 2 or 3."""
    for key, layer in settings():
        for name, value in ODD.items() if key.startswith(only) else ():
            Path("odd.yaml").write_text(
                dump_yaml(merge({"pretrain": {"datasets": ["shapes-coarse"]}}, layer, nest(key, value)))
            )
            done = CliRunner().invoke(cli, ["pretrain", "--dry-run", "--config", "odd.yaml"], standalone_mode=False)
            error = done.exception
            if isinstance(error, MdpError) and error.exit_code in (2, 3) and "\n" not in str(error):
                continue
            if error is not None:
                yield f"dry run, {key} {name}: {error!r}"[:500]


def runs(only: str) -> Iterator[str]:
    """The keys and values that pass the settings and end a run of two steps in anything but one line."""
    for key, layer, value in edges():
        if not key.startswith(only):
            continue
        start = run_finetuning if key.startswith("finetune") else run_pretraining
        small: Layer = merge(TINY, {"pretrain": {"steps": 2}, "finetune": {"steps": 2}}, layer, nest(key, value))
        try:
            with tempfile.TemporaryDirectory() as folder:
                start(Request(layers=(small,), out=Path(folder), quiet=True, init="scratch" if "fine" in key else None))
        except MdpError as error:
            if "\n" in str(error) or error.exit_code not in EXPECTED:
                yield f"run, {key} = {value}: {error}"
        except Exception as error:
            yield f"run, {key} = {value}: {error!r}"[:500]
        print(".", end="", file=sys.stderr, flush=True)


def edges() -> Iterator[tuple[str, Layer, Any]]:
    """Every number at its least and its greatest, with the layer that makes it a setting."""
    kinds = [("", {}, section, kind) for section, kind in SECTIONS.items() if section != "eval"]
    kinds += [(name, {"method": {"name": name}}, "method", find_method(name).Settings) for name in method_names()]
    for _, layer, section, kind in kinds:
        for part, prefix in parts(kind, section):
            for name, bounds in bounds_of(part).items():
                for side in ("low", "high"):
                    if side == "high" and name in COSTLY:
                        continue
                    values = [getattr(bound, side) for bound in bounds]
                    plain = getattr(part(), name)
                    yield f"{prefix}.{name}", layer, values if isinstance(plain, tuple) else values[0]


def parts(kind: type, prefix: str) -> Iterator[tuple[type, str]]:
    """A class of settings and those inside it, with where their keys begin."""
    yield kind, prefix
    for name, hint in get_type_hints(kind).items():
        if hint in set(inside(kind)) - {kind}:
            yield from parts(hint, f"{prefix}.{name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="settings whose key begins with this")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        wrong = [*dry_runs(only), *runs(only)]
    print("\n".join(wrong) or "nothing wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
