"""`mdp report`: one page about one or several runs, in a file that needs nothing else."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mdp.io.errors import MdpError, RecipeError
from mdp.io.files.reading import printable, read_bytes
from mdp.io.files.writing import make, write_text
from mdp.io.report.activations import draw_activations
from mdp.io.report.compared import comparisons, read_comparison
from mdp.io.report.page import MARK, page
from mdp.io.report.run_facts import read_run, unique_names

MOST = 24  # runs on a page: that many lines can be told apart
_SIGNS = ("config.yaml", "metrics.jsonl", "status.json")  # one of these makes a folder a run
_LARGE = 2**28  # bytes of a page


def run_report(places: Sequence[Path], out: Path | None, say: Callable[[str], None] | None = None) -> Path:
    """Writes the page about runs, and results of `mdp compare`, whole or not at all, and returns where.

    With `say` the maps of each run's own classifier are drawn first, and what stands in the way is said.
    Without `out` it is report.html in the first place's folder.  Raises RecipeError for what is neither, for too many
    runs, and when `out` holds something else than a report; ResourceError when something cannot be read or written.
    """
    chosen = list({path.resolve(): path for path in places}.values())
    folders = [path for path in chosen if _is_run(path)]
    compared = [read_comparison(file) for path in chosen if path not in folders for file in _compared(path)]
    if not chosen or len(folders) > MOST:
        raise RecipeError(f"expected 1 to {MOST} runs, got {len(folders)}: more lines cannot be told apart")
    page_path = out or (chosen[0] if chosen[0].is_dir() else chosen[0].parent) / "report.html"
    _expect_replaceable(page_path)
    if say is not None:
        for problem in filter(None, map(draw_activations, folders)):
            say(problem)
    facts = [read_run(folder, name) for folder, name in zip(folders, unique_names(folders), strict=True)]
    make(page_path.parent)
    write_text(page_path, page(facts, time.time(), compared))
    return page_path


def _is_run(path: Path) -> bool:
    return any((path / sign).is_file() for sign in _SIGNS)


def _compared(path: Path) -> list[Path]:
    """The files of comparisons at a path that is no run."""
    if not path.exists():
        raise RecipeError(f"{printable(path)}: expected a run folder, found nothing")
    if path.is_file() and path.suffix != ".json":
        raise RecipeError(f"{printable(path)}: expected a run folder, or a compare.json, found another file")
    if path.is_dir() and not any(path.glob("*.json")):
        raise RecipeError(f"{printable(path)}: not a run of mdp: it has none of {', '.join(_SIGNS)}")
    return comparisons(path)


def report_at_end(folder: Path, say: Callable[[str], None]) -> None:
    """The page about one run, in its folder; a page that cannot be made is said, and is no reason to fail."""
    try:
        say(f"report: {run_report([folder], None)}")
    except MdpError as error:
        say(f"no report: {error}")


def _expect_replaceable(path: Path) -> None:
    """A page is written over an older page only."""
    if path.is_dir():
        raise RecipeError(f"--out {printable(path)}: expected a file such as report.html, found a folder")
    if not path.exists():
        return
    if MARK.encode() not in read_bytes(str(path), "report", _LARGE, RecipeError)[:1000]:
        raise RecipeError(f"{printable(path)}: there is a file that is no report of mdp; choose another with --out")
