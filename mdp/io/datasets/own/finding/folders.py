"""The files of a dataset's folders: listed once, below them at any depth, and by their stems."""

import os
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from mdp.io.datasets._layouts import contents
from mdp.io.datasets.own import borders
from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files.reading import is_dir, listed, printable, way_out


class Files:
    """Looks into folders, each once."""

    def __init__(self, border: str) -> None:
        self.border = border
        self._names: dict[Path, dict[str, bool]] = {}

    def names(self, folder: Path) -> dict[str, bool]:
        """The names in a folder, each with whether it is anything but a plain file; none if there is no such folder."""
        if folder not in self._names:
            try:
                self._names[folder] = dict(listed(folder))
            except PermissionError as error:
                raise ResourceError(f"{printable(folder)}: the folder cannot be read: {error.strerror}") from error
            except (OSError, ValueError):
                self._names[folder] = {}
        return self._names[folder]

    def below(self, folder: Path, endings: Collection[str], passed: Collection[Path] = ()) -> list[str]:
        """The paths below a folder of the files with one of the endings, sorted; hidden ones are left out.

        Folders named in `passed` are left out too.  Links to folders are followed, but never in a circle nor past the
        border.  A folder in a file's place is listed as one.  Raises DatasetError when the folder is missing.
        """
        if not is_dir(folder):
            raise DatasetError(f"{printable(folder)}: the folder is missing; {contents(folder.parent)}")
        found: list[str] = []
        waiting, visited = [(folder, "")], set[str]()  # real paths: two links may lead to one folder
        while waiting:
            current, prefix = waiting.pop()
            real = os.path.realpath(current)
            if real in visited or current in passed:
                continue
            if current != folder:
                borders.refuse(way_out(current, self.border), printable(current))
            visited.add(real)
            for name, odd in self.names(current).items():
                if name.startswith("."):
                    continue
                if Path(name).suffix.lower() in endings:
                    found.append(prefix + name)
                elif odd and is_dir(current / name):
                    waiting.append((current / name, f"{prefix}{name}/"))
        return sorted(found, key=lambda path: path.split("/"))


def by_stem(paths: Iterable[str], folder: Path, second: tuple[str, ...]) -> dict[str, str]:
    """Paths below a folder by their stems; those that end as in `second` only where no other has their stem.

    Raises DatasetError when two files share a stem: there is no telling which one is meant.
    """
    stems: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: path.lower().endswith(second)):
        stem = stem_of(path)
        if stem in stems and not path.lower().endswith(second):
            both = f"{printable(folder / path)} and {printable(stems[stem])}"
            raise DatasetError(f"{both} share a stem; remove one of them, or say which is meant by a template")
        stems.setdefault(stem, path)
    return stems


def stem_of(path: str) -> str:
    """A path without its ending."""
    folder, slash, name = path.rpartition("/")
    return plain(folder + slash + Path(name).stem)


def plain(text: str) -> str:
    """One spelling of accented letters: macOS writes them decomposed, lists have them composed."""
    return unicodedata.normalize("NFC", text)
