"""Paths that leave a dataset's folder, as written or by links, are refused unless it says `outside: true`."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from mdp.io.errors import DatasetError
from mdp.io.files.reading import STAY_INSIDE, listed, printable, shown, stray_entry, way_out


def refuse_ways_out(texts: Mapping[str, str | None], path: Path) -> None:
    """Raises DatasetError, naming the key, for a path that would leave the dataset's folder if there were no links."""
    for where, text in texts.items():
        if text is not None:
            refuse_way_out(text, f"{path}: {where}")


def leads_out(text: str) -> bool:
    """Whether a path, as it is written, leads out of the folder it starts from, or is one of Windows."""
    return (
        "\\" in text or bool(PureWindowsPath(text).drive) or text.startswith("/") or ".." in PurePosixPath(text).parts
    )


def refuse_way_out(text: str, where: str) -> None:
    if "\\" in text or PureWindowsPath(text).drive:
        raise DatasetError(
            f"{where}: {shown(text)} is a path of Windows; write it with / and inside the dataset's folder"
        )
    if text.startswith("/") or ".." in PurePosixPath(text).parts:
        raise DatasetError(f"{where}: {shown(text)} leads out of the dataset's folder; {STAY_INSIDE}")


def refuse_strays(placed: Sequence[tuple[Path, str]], border: str) -> None:
    """Raises DatasetError, naming where it says so, for what leads out of the border or is no file; opens nothing."""
    odd: dict[Path, set[str]] = {}
    for path, where in placed:
        folder = path.parent
        if folder not in odd:
            refuse(way_out(folder, border), f"{where}{printable(folder)}")
            odd[folder] = _odd_entries(folder)
        if path.name in odd[folder]:
            refuse(stray_entry(path, border), f"{where}{printable(path)}")


def refuse(reason: str, where: str) -> None:
    if reason:
        raise DatasetError(f"{where}: {reason}")


def _odd_entries(folder: Path) -> set[str]:
    """The names of links, folders, pipes and devices in a folder: one listing, no look at each file."""
    try:
        return {name for name, odd in listed(folder) if odd}
    except (OSError, ValueError):
        return set()  # what is missing there is for `paired` to say
