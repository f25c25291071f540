"""`mdp report`: one page about one or several runs, in a file that needs nothing else."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mdp.io import runs
from mdp.io.errors import MdpError, RecipeError
from mdp.io.files import printable, read_bytes
from mdp.io.report_facts import read_run, unique_names
from mdp.io.report_page import MARK, page

MOST = 24  # runs on a page: that many lines can be told apart
_SIGNS = ("config.yaml", "metrics.jsonl", "status.json")  # one of these makes a folder a run
_LARGE = 2**28  # bytes of a page


def run_report(folders: Sequence[Path], out: Path | None) -> Path:
    """Writes the page about the runs, whole or not at all, and returns where.

    Without `out` it is report.html in the first run's folder.  Raises RecipeError for what is no run, for too many of
    them, and when `out` holds something else than a report; ResourceError when something cannot be read or written.
    """
    chosen = list({folder.resolve(): folder for folder in folders}.values())
    if not 1 <= len(chosen) <= MOST:
        raise RecipeError(f"expected 1 to {MOST} runs, got {len(chosen)}: more lines cannot be told apart")
    for folder in chosen:
        _expect_run(folder)
    place = chosen[0] / "report.html" if out is None else out
    _expect_replaceable(place)
    names = unique_names(chosen)
    facts = [read_run(folder, name) for folder, name in zip(chosen, names, strict=True)]
    runs.make(place.parent)
    runs.write_text(place, page(facts, time.time()))
    return place


def report_at_end(folder: Path, say: Callable[[str], None]) -> None:
    """The page about one run, in its folder; a page that cannot be made is said, and is no reason to fail."""
    try:
        say(f"report: {run_report([folder], None)}")
    except MdpError as error:
        say(f"no report: {error}")


def _expect_run(folder: Path) -> None:
    if folder.is_file():
        raise RecipeError(f"{printable(folder)}: expected a run folder, found a file")
    if not folder.is_dir():
        raise RecipeError(f"{printable(folder)}: expected a run folder, found nothing")
    if not any((folder / sign).is_file() for sign in _SIGNS):
        raise RecipeError(f"{printable(folder)}: not a run of mdp: it has none of {', '.join(_SIGNS)}")


def _expect_replaceable(place: Path) -> None:
    """A page is written over an older page only."""
    if place.is_dir():
        raise RecipeError(f"--out {printable(place)}: expected a file such as report.html, found a folder")
    if not place.exists():
        return
    if MARK.encode() not in read_bytes(str(place), "report", _LARGE, RecipeError)[:1000]:
        raise RecipeError(f"{printable(place)}: there is a file that is no report of mdp; choose another with --out")
