"""The check of the data, by itself and before training: everything is read once, and not again until a file changes.

A check that passed is remembered under a fingerprint of the dataset's description and of every file's size and time
of change, in a zip archive also its checksum.  What is in training and validation alike is looked for across all
datasets.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mdp import __version__
from mdp.io.check_report import Problem, Report, judge, refuse_errors
from mdp.io.datasets import Absent, Dataset, Sample, open_split
from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.files import Stamp, is_file, read_bytes, stamp
from mdp.io.journal import Counter
from mdp.io.opening import named
from mdp.io.runs import space_json
from mdp.io.scanning import Seen, check_samples
from mdp.io.signals import stop_on_signals
from mdp.io.traps import other_edition

__all__ = ["check_before_training", "check_samples", "fingerprint", "leaks", "run_check"]

Part = tuple[Dataset, list[Sample], str]  # what is read, and as what: "train" or "val"

_VERSION = 1  # of what is checked and remembered
_KEPT = 200  # remembered checks; the oldest are forgotten
_NEAR = 2  # bits in which the looks of near duplicates may differ
_BANDS = ((0, 21), (21, 21), (42, 22))  # first bit and width: of three bands, two differing bits leave one alike


class Print(NamedTuple):
    """What is compared between splits."""

    image: str
    pixel_hash: str
    look: int | None


# Before training


def check_before_training(
    parts: Sequence[Part],
    workers: int,
    say: Callable[[str], None],
    use_cache: bool = True,
    stop: Callable[[], object] | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Checks every image that training and validation would read, unless nothing changed since that passed.

    Says a line for each part, and the warnings.  Generated datasets and empty parts are left out.  Raises
    DatasetError with everything that is wrong, Preempted when `stop` gives true, ResourceError when a worker died.
    """
    parts = [(dataset, samples, role) for dataset, samples, role in parts if samples and not _generated(samples)]
    cache = _Cache(say, use_cache)
    stamped = [_stamps(samples) for _, samples, _ in parts]
    keys = [_key(part, stamps) for part, stamps in zip(parts, stamped, strict=True)]
    together = _digest(["together", *keys])
    known = cache.read(together)
    if known:
        for line in known["lines"]:
            say(line)
        return
    reports, prints, lines = [], [], []
    for part, stamps, key in zip(parts, stamped, keys, strict=True):
        begun = time.monotonic()
        report, part_prints, cached = _checked(part, stamps, key, cache, workers, stop, tell)
        how = "(cached)" if cached else f"in {time.monotonic() - begun:.0f} s"
        say(f"{_name(part)}: {len(part[1]):,} images checked {how}")
        lines.append(f"{_name(part)}: {len(part[1]):,} images checked (cached)")
        reports.append(report)
        prints.append(part_prints)
    reports = _with_leaks(reports, prints, [role for _, _, role in parts])
    warnings = [
        f"warning: {report.dataset} {report.split}: {problem.text}"
        + (f" ({problem.files[0]})" if problem.files else "")
        for report in reports
        for problem in report.problems
        if not problem.error
    ]
    for line in warnings:
        say(line)
    refuse_errors(reports)
    cache.write(together, {"lines": [*lines, *warnings]})


def _checked(
    part: Part,
    stamps: Sequence[Stamp],
    key: str,
    cache: "_Cache",
    workers: int,
    stop: Callable[[], object] | None,
    tell: Callable[[int, int], None] | None,
) -> tuple[Report, list[Print], bool]:
    """Report and prints of a part, and whether they were remembered."""
    dataset, samples, role = part
    known = cache.read(key)
    if known:
        problems = tuple(Problem(**{**entry, "files": tuple(entry["files"])}) for entry in known["problems"])
        report = Report(dataset=dataset.name, split=role, images=len(samples), problems=problems)
        return report, [Print(row["image"], row["pixels"], row["look"]) for row in known["files"]], True
    seen = check_samples(dataset, samples, workers, stop, tell)
    report = judge(dataset, samples, seen, role, role == "train")
    _remember(cache, key, report, samples, stamps, seen)
    return report, _prints(samples, seen), False


def _prints(samples: Sequence[Sample], seen: Sequence[Seen]) -> list[Print]:
    return [
        Print(sample.image, found.pixel_hash, found.look)
        for sample, found in zip(samples, seen, strict=True)
        if not found.error
    ]


def _name(part: Part) -> str:
    return f"{part[0].name} {part[2]}"


def _generated(samples: Sequence[Sample]) -> bool:
    """Whether pictures are drawn as they are read: their names are no files."""
    return samples[0].labels.endswith(" (labels)")


# In training and validation alike


def leaks(training: Sequence[Print], validation: Sequence[Print]) -> tuple[list[str], list[str]]:
    """The validation images whose very pixels are trained on, and those that only look like one that is."""
    same = {found.pixel_hash: found.image for found in training}
    bands: dict[tuple[int, int], list[Print]] = {}
    for found in training:
        for band in _bands(found.look):
            bands.setdefault(band, []).append(found)
    exact, near = [], []
    for scored in validation:
        if scored.pixel_hash in same:
            twin = same[scored.pixel_hash]
            exact.append(scored.image if twin == scored.image else f"{scored.image} is {twin}")
            continue
        alike = (
            other for band in _bands(scored.look) for other in bands.get(band, []) if _near(other.look, scored.look)
        )
        near += [f"{scored.image} is like {other.image}" for other in islice(alike, 1)]
    return exact, near


def _bands(look: int | None) -> list[tuple[int, int]]:
    """Parts of the 64 bits: what differs in two of them at most has one part in common."""
    if look is None:
        return []
    return [(place, look >> first & ((1 << width) - 1)) for place, (first, width) in enumerate(_BANDS)]


def _near(a: int | None, b: int | None) -> bool:
    return a is not None and b is not None and (a ^ b).bit_count() <= _NEAR


def _with_leaks(reports: Sequence[Report], prints: Sequence[list[Print]], roles: Sequence[str]) -> list[Report]:
    """The reports; those of validation with what is trained on too."""
    training = [found for some, role in zip(prints, roles, strict=True) if role == "train" for found in some]
    return [
        report if role == "train" else replace(report, problems=(*report.problems, *_leak_problems(training, some)))
        for report, some, role in zip(reports, prints, roles, strict=True)
    ]


def _leak_problems(training: Sequence[Print], validation: Sequence[Print]) -> list[Problem]:
    exact, near = leaks(training, validation)
    texts = {
        "leak": (exact, "are also trained on; their scores mean little: leave them out by a `list:` file"),
        "near_leak": (near, "look like one that is trained on; see whether they are the same picture"),
    }
    return [
        Problem(kind, False, f"{len(files):,} of {len(validation):,} images {text}", len(files), tuple(files[:10]))
        for kind, (files, text) in texts.items()
        if files
    ]


# What is remembered


def fingerprint(dataset: Dataset, samples: Sequence[Sample], role: str) -> str:
    """SHA-256 of all that a check depends on: the dataset's description, and path, size and time of every file."""
    return _key((dataset, list(samples), role), _stamps(samples))


def _key(part: Part, stamps: Sequence[Stamp]) -> str:
    dataset, samples, role = part
    source = dataset.source
    description = hashlib.sha256(read_bytes(source, "dataset file")).hexdigest() if is_file(source) else source
    space = json.dumps(space_json(dataset.labels), sort_keys=True)
    files = zip(_paths(samples), stamps, strict=True)
    rows = ("\0".join(filter(None, (os.path.abspath(path), *map(str, found)))) for path, found in files)
    return _digest([str(_VERSION), __version__, description, space, role, *rows])


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _paths(samples: Sequence[Sample]) -> list[str]:
    return [path for sample in samples for path in (sample.image, sample.labels)]


def _stamps(samples: Sequence[Sample]) -> list[Stamp]:
    """What changes with each sample's two files, in order."""
    paths = _paths(samples)
    groups = [paths[start : start + 1000] for start in range(0, len(paths), 1000)]
    threads = ThreadPoolExecutor(8)  # on a network disk nearly all of it is waiting
    try:
        return [stamp for group in threads.map(_stamps_of, groups) for stamp in group]
    finally:
        threads.shutdown(cancel_futures=True)


def _stamps_of(paths: Sequence[str]) -> list[Stamp]:
    return [stamp(path) for path in paths]


def _remember(
    cache: "_Cache",
    key: str,
    report: Report,
    samples: Sequence[Sample],
    stamps: Sequence[Stamp],
    seen: Sequence[Seen],
) -> None:
    """Writes what passed, with a manifest of the files."""
    if any(problem.error for problem in report.problems):
        return
    rows = []
    for place, (sample, found) in enumerate(zip(samples, seen, strict=True)):
        image, labels = stamps[2 * place : 2 * place + 2]
        row: dict[str, Any] = {"image": sample.image, "size": image.size, "mtime_ns": image.changed}
        row["sha256"] = found.image_hash
        if sample.labels:
            row["labels"] = [sample.labels, labels.size, labels.changed, found.labels_hash]
        rows.append({**row, "pixels": found.pixel_hash, "look": found.look})
    problems = [asdict(problem) for problem in report.problems]
    about = {"dataset": report.dataset, "split": report.split, "images": report.images}
    cache.write(key, {**about, "problems": problems, "files": rows})


class _Cache:
    """The folder of remembered checks.  Whatever is wrong with it costs time, never a run."""

    def __init__(self, say: Callable[[str], None], used: bool) -> None:
        self.say, self.used, self.told = say, used, False

    @property
    def folder(self) -> Path:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "mdp" / "checks"

    def read(self, key: str) -> dict[str, Any] | None:
        """What was remembered under that key, unless it is missing or damaged."""
        if not self.used:
            return None
        try:
            found = json.loads((self.folder / f"{key}.json").read_bytes())
        except (OSError, ValueError, RuntimeError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get("key") == key else None

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
            if not self.told:
                self.say(f"note: the check cannot be remembered and will be done again next time: {error}")
            self.told = True


# By itself


def run_check(names: Sequence[str], root: Path, workers: int | None, images: int | None, quiet: bool) -> list[Report]:
    """A report for each split of the named datasets: `name:split`, or by default what is trained and scored on.

    With `images` only so many of each split, evenly spaced, are looked at.  What passes whole is remembered for
    training.  Raises RecipeError for unknown names and splits, Preempted when a signal asked to stop.
    """
    if not names:
        raise RecipeError("no datasets: give names or YAML files, such as `mdp check voc my.yaml` (see `mdp datasets`)")
    progress = Counter(quiet)
    cache = _Cache(progress.say, True)
    workers = min(os.cpu_count() or 1, 16) if workers is None else workers
    reports: list[Report] = []
    prints: list[list[Print]] = []
    roles: list[str] = []
    with stop_on_signals() as stop:
        for dataset, split, role in [found for name in names for found in _splits(name, root)]:
            roles.append(role)
            try:
                samples = open_split(dataset, root, split)[0]
            except DatasetError as error:
                reports.append(_not_opened(dataset, root, split, role, error))
                prints.append([])
                continue
            count, every = len(samples), images is None or images >= len(samples)
            chosen = samples if every else [samples[i * count // (images or 1)] for i in range(images or 1)]
            progress.say(f"checking {dataset.name} {split}: {len(chosen):,} images")
            stamps = _stamps(chosen)
            seen = check_samples(dataset, chosen, workers, lambda: bool(stop), progress.tell)
            report = judge(dataset, chosen, seen, role, role == "train")
            if every and not _generated(samples):
                _remember(cache, _key((dataset, samples, role), stamps), report, samples, stamps, seen)
            reports.append(_in_full(report, dataset, split, count, every))
            prints.append(_prints(chosen, seen))
    return _with_leaks(reports, prints, roles)


def _splits(name: str, root: Path) -> Iterator[tuple[Dataset, str, str]]:
    """The splits that a name stands for, and whether they are trained or scored on."""
    dataset, split = named(name)
    if split:
        yield dataset, split, "train" if split in dataset.train or "train" in split else "val"
        return
    yield dataset, _first_there(dataset, root), "train"
    if dataset.val:
        yield dataset, dataset.val, "val"


def _first_there(dataset: Dataset, root: Path) -> str:
    """The training split that is taken by default."""
    for split in dataset.train[:-1]:
        try:
            open_split(dataset, root, split)
        except Absent:
            continue
        except MdpError:
            pass  # it is there, but something is wrong with it
        return split
    return dataset.train[-1]


def _not_opened(dataset: Dataset, root: Path, split: str, role: str, error: DatasetError) -> Report:
    """A split whose files are not there; an absent validation split keeps nobody from training."""
    edition = other_edition(dataset, root) if isinstance(error, Absent) else ""
    text = "; ".join(filter(None, (str(error), edition)))
    wrong = role == "train" or not isinstance(error, Absent)
    return Report(dataset=dataset.name, split=split, images=0, problems=(Problem("missing", wrong, text),))


def _in_full(report: Report, dataset: Dataset, split: str, count: int, every: bool) -> Report:
    """The report under the split's name and, where only some images were looked at, without what that brings about."""
    official = dataset.splits[split]
    problems = [problem for problem in report.problems if every or problem.kind != "class_absent"]
    if official is not None and count != official:
        text = f"{count:,} images where there should be {official:,}: is the download complete?"
        problems.append(Problem("count", False, text))
    return replace(report, split=split, problems=tuple(problems))
