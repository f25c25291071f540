"""The check of the data, by itself and before training: everything is read once, and not again until a file changes.

A check that passed is remembered under a fingerprint of the dataset's description and of every file's size and time
of change, in a zip archive also its checksum.  What is in training and validation alike is looked for across all
datasets.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdp.io.check.known_mistakes import other_edition
from mdp.io.check.leaks import Print, prints_of, with_leaks
from mdp.io.check.problem import Problem
from mdp.io.check.remembered import Cache, Part, digest, generated, key_of, part_name, remember, stamps_of_samples
from mdp.io.check.report import Report, judge, refuse_errors
from mdp.io.check.scan import check_samples
from mdp.io.data.selection import ONE_CLASS, named
from mdp.io.datasets._dataset import Absent, Dataset, open_split
from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.files.reading import Stamp, printable, shown
from mdp.io.journal.counter import Counter
from mdp.io.processes.signals import stop_on_signals

_LISTED = 10  # files named for what is left out

# Before training


def check_before_training(
    parts: Sequence[Part],
    workers: int,
    say: Callable[[str], None],
    use_cache: bool = True,
    stop: Callable[[], object] | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> list[Print]:
    """Checks every image that training and validation would read, unless nothing changed since that passed.

    Says a line for each part, and the warnings, and returns what it knows of each photo.  Generated datasets and empty
    parts are left out.  Raises DatasetError with everything that is wrong, Preempted when `stop` gives true,
    ResourceError when a worker died.
    """
    parts = [(dataset, samples, role) for dataset, samples, role in parts if samples and not generated(samples)]
    cache = Cache(say, use_cache)
    stamped = [stamps_of_samples(samples) for _, samples, _ in parts]
    keys = [key_of(part, stamps) for part, stamps in zip(parts, stamped, strict=True)]
    together = digest(["together", *keys])  # leaks are between parts, so the parts alone say too little
    known = cache.read(together)
    if known:
        for line in known["lines"]:
            say(line)
        return [photo for part, key in zip(parts, keys, strict=True) for photo in _prints(part, cache.read(key) or {})]
    reports, prints, lines = [], [], []
    for part, stamps, key in zip(parts, stamped, keys, strict=True):
        begun = time.monotonic()
        report, part_prints, cached = _checked(part, stamps, key, cache, workers, stop, tell)
        how = "(cached)" if cached else f"in {time.monotonic() - begun:.0f} s"
        say(f"{part_name(part)}: {len(part[1]):,} images checked {how}")
        lines.append(f"{part_name(part)}: {len(part[1]):,} images checked (cached)")
        reports.append(report)
        prints.append(part_prints)
    reports = with_leaks(reports, prints, [role for _, _, role in parts])
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
    return [photo for some in prints for photo in some]


def _checked(
    part: Part,
    stamps: Sequence[Stamp],
    key: str,
    cache: Cache,
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
        return report, _prints(part, known), True
    observations = check_samples(dataset, samples, workers, stop, tell)
    report = judge(dataset, samples, observations, role, role == "train")
    remember(cache, key, report, dataset, samples, stamps, observations)
    return report, prints_of(samples, observations), False


def _prints(part: Part, known: Mapping[str, Any]) -> list[Print]:
    """The photos of a part whose check was remembered, perhaps by other paths to the same files."""
    rows = zip(part[1], known.get("files", []), strict=False)
    return [Print(sample.image, row["pixels"], row["look"]) for sample, row in rows]


# By itself


def run_check(names: Sequence[str], root: Path, workers: int | None, images: int | None, quiet: bool) -> list[Report]:
    """A report for each split of the named datasets: `name:split`, or by default what is trained and scored on.

    With `images` only so many of each split, evenly spaced, are looked at.  What passes whole is remembered for
    training.  Raises RecipeError for unknown names and splits, Preempted when a signal asked to stop.
    """
    if not names:
        raise RecipeError("no datasets: give names or YAML files, such as `mdp check voc my.yaml` (see `mdp datasets`)")
    progress = Counter(quiet)
    cache = Cache(progress.say, True)
    workers = min(os.cpu_count() or 1, 16) if workers is None else workers
    reports: list[Report] = []
    prints: list[list[Print]] = []
    roles: list[str] = []
    with stop_on_signals() as stop:
        for dataset, split, role in [part for name in names for part in _splits(name, root)]:
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
            stamps = stamps_of_samples(chosen)
            observations = check_samples(dataset, chosen, workers, lambda: bool(stop), progress.tell)
            report = judge(dataset, chosen, observations, role, role == "train")
            if every and not generated(samples):
                key = key_of((dataset, samples, role), stamps)
                remember(cache, key, report, dataset, samples, stamps, observations)
            if len(dataset.labels.classes) == 1:  # beside other sets it may be trained on
                text = ONE_CLASS.format(name=shown(dataset.labels.classes[0]))
                report = replace(report, problems=(Problem("one_class", True, text), *report.problems))
            report = _with_left_out(report, dataset, root, split)
            reports.append(_in_full(report, dataset, split, count, every))
            prints.append(prints_of(chosen, observations))
    return with_leaks(reports, prints, roles)


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


def _with_left_out(report: Report, dataset: Dataset, root: Path, split: str) -> Report:
    """The report with a warning for each kind of file in the split's folders that is in no sample."""
    kinds = dataset.left_out(root, split) if dataset.left_out else []
    problems = [
        Problem(
            "left_out", False, f"left out: {len(files):,} {kind}", len(files), tuple(map(printable, files[:_LISTED]))
        )
        for kind, files in kinds
    ]
    return replace(report, problems=(*report.problems, *problems))


def _in_full(report: Report, dataset: Dataset, split: str, count: int, every: bool) -> Report:
    """The report under the split's name and, where only some images were looked at, without what that brings about."""
    official = dataset.splits[split]
    problems = [problem for problem in report.problems if every or problem.kind != "class_absent"]
    if official is not None and count != official:
        text = f"{count:,} images where there should be {official:,}: is the download complete?"
        problems.append(Problem("count", False, text))
    return replace(report, split=split, problems=tuple(problems))
