"""The memory of checks: one that passed is not made again until a file changes."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mdp import __version__
from mdp.io.annotations.drawing import stamp_of
from mdp.io.check.report import Report
from mdp.io.check.scan import Observation, classes_in
from mdp.io.datasets._dataset import Dataset, Sample
from mdp.io.datasets.own.description import description_values
from mdp.io.files.reading import Stamp, is_file, read_bytes
from mdp.io.run.record import space_json

Part = tuple[Dataset, list[Sample], str]  # what is read, and as what: "train" or "val"

_VERSION = 3  # of what is checked and remembered
_KEPT = 200  # remembered checks; the oldest are forgotten


def part_name(part: Part) -> str:
    return f"{part[0].name} {part[2]}"


def generated(samples: Sequence[Sample]) -> bool:
    """Whether pictures are drawn as they are read: their names are no files."""
    return samples[0].labels.endswith(" (labels)")


# What is remembered


def fingerprint(dataset: Dataset, samples: Sequence[Sample], role: str) -> str:
    """SHA-256 of all that a check depends on: the dataset's description, and path, size and time of every file."""
    return key_of((dataset, list(samples), role), stamps_of_samples(samples))


def key_of(part: Part, stamps: Sequence[Stamp]) -> str:
    dataset, samples, role = part
    source = dataset.source
    description = hashlib.sha256(read_bytes(source, "dataset file")).hexdigest() if is_file(source) else source
    if is_file(source) and source.endswith((".yaml", ".yml")):
        description += repr(description_values(Path(source)))  # a class table is a file of its own
    space = json.dumps(space_json(dataset.labels), sort_keys=True)
    files = zip(_paths(samples), stamps, strict=True)
    rows = ("\0".join(filter(None, (os.path.abspath(path), *map(str, values)))) for path, values in files)
    return digest([str(_VERSION), __version__, description, space, role, *rows])


def digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _paths(samples: Sequence[Sample]) -> list[str]:
    return [path for sample in samples for path in (sample.image, sample.labels)]


def stamps_of_samples(samples: Sequence[Sample]) -> list[Stamp]:
    """The stamps of each sample's two files, in order."""
    paths = _paths(samples)
    groups = [paths[start : start + 1000] for start in range(0, len(paths), 1000)]
    threads = ThreadPoolExecutor(8)  # on a network disk nearly all of it is waiting
    try:
        return [stamp for group in threads.map(_stamps_of, groups) for stamp in group]
    finally:
        threads.shutdown(cancel_futures=True)


def _stamps_of(paths: Sequence[str]) -> list[Stamp]:
    return [stamp_of(path) for path in paths]


class Cache:
    """The folder of remembered checks.  Whatever is wrong with it costs time, never a run."""

    def __init__(self, say: Callable[[str], None], used: bool) -> None:
        self.say, self.used, self.warned = say, used, False

    @property
    def folder(self) -> Path:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "mdp" / "checks"

    def read(self, key: str) -> dict[str, Any] | None:
        """The values remembered under that key, unless it is missing or damaged."""
        if not self.used:
            return None
        try:
            values = json.loads((self.folder / f"{key}.json").read_bytes())
        except (OSError, ValueError, RuntimeError, RecursionError):
            return None
        return values if isinstance(values, dict) and values.get("key") == key else None

    def write(self, key: str, values: dict[str, Any]) -> None:
        """Remembers, whole or not at all; says once where that is not possible."""
        try:
            folder = self.folder
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".{key}.{os.getpid()}"
            temporary.write_text(json.dumps({"key": key, **values}), encoding="utf-8")
            temporary.replace(folder / f"{key}.json")
            for old in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
                old.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
            if not self.warned:
                self.say(f"note: the check cannot be remembered and will be done again next time: {error}")
            self.warned = True


def remember(
    cache: Cache,
    key: str,
    report: Report,
    dataset: Dataset,
    samples: Sequence[Sample],
    stamps: Sequence[Stamp],
    observations: Sequence[Observation],
) -> None:
    """Writes what passed, with a manifest of the files."""
    if any(problem.error for problem in report.problems):
        return
    rows = []
    for index, (sample, observation) in enumerate(zip(samples, observations, strict=True)):
        image, labels = stamps[2 * index : 2 * index + 2]
        row: dict[str, Any] = {"image": sample.image, "size": image.size, "mtime_ns": image.changed}
        row["sha256"] = observation.image_hash
        if sample.labels:
            row["labels"] = [sample.labels, labels.size, labels.changed, observation.labels_hash]
            row["classes"] = classes_in(dataset.labels, observation)
        rows.append({**row, "pixels": observation.pixel_hash, "look": observation.look})
    problems = [asdict(problem) for problem in report.problems]
    about = {"dataset": report.dataset, "split": report.split, "images": report.images}
    cache.write(key, {**about, "problems": problems, "files": rows})
