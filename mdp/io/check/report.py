"""The report of a check, for people and for programs: figures of a split, what is wrong with it, the lines to add.

Everything is made of what `scan.py` saw; nothing here reads a file or prints.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdp.core.labels import IGNORE
from mdp.io.check import channels, file_problems, known_mistakes, objects
from mdp.io.check.problem import LISTED, Observed, Problem, counted, some
from mdp.io.check.scan import Observation
from mdp.io.datasets._dataset import Dataset, Sample
from mdp.io.datasets._mistakes import Mistake
from mdp.io.errors import DatasetError

_LINES = 40  # of an error message
_THIRD = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Report:
    """Figures of the images of one split, and what is wrong with them."""

    dataset: str
    split: str
    images: int
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # min, median, max by area: width, height
    kinds: Mapping[str, int] = field(default_factory=dict)  # images by format and colour mode
    labelled: bool = True
    ignored: float = 0.0  # share of the pixels
    all_ignored: int = 0  # images
    rotated: int = 0  # photos with an EXIF orientation
    values: Mapping[str, Any] = field(default_factory=dict)  # of photos with a declared range, see `channels.py`
    classes: tuple[tuple[str, float, int], ...] = ()  # name, share of all pixels, images; rarest last
    never: tuple[str, ...] = ()  # classes that do not occur
    objects: Mapping[str, Any] = field(default_factory=dict)  # of datasets with "other", see `objects.py`
    problems: tuple[Problem, ...] = ()
    source: str = ""  # the YAML file that describes it
    yaml: tuple[str, ...] = ()  # lines for it

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        values = asdict(self)
        for name in ("values", "objects"):
            if not values[name]:
                del values[name]
        values["classes"] = [dict(zip(("name", "share", "images"), entry, strict=True)) for entry in values["classes"]]
        return values


# Judging


def judge(
    dataset: Dataset, samples: Sequence[Sample], observations: Sequence[Observation], split: str, training: bool
) -> Report:
    """The figures of a split and what is wrong with it."""
    good = [(sample, image) for sample, image in zip(samples, observations, strict=True) if not image.error]
    broken, colors = file_problems.unreadable(dataset, observations)
    values = channels.figures_of(good, dataset.photos)
    clipped, image = channels.problems_of(dataset, good, values, training)
    report = Report(
        dataset=dataset.name,
        split=split,
        images=len(samples),
        sizes=_sizes([image for _, image in good]),
        kinds=dict(Counter(image.kind for _, image in good if image.kind).most_common()),
        labelled=bool(dataset.labels.classes) and any(sample.labels for sample in samples),
        rotated=sum(image.orientation != 1 for _, image in good),
        values=values,
        problems=(*broken, *file_problems.odd_files(dataset, good), *clipped),
        source=dataset.source if known_mistakes.is_own(dataset) else "",
        yaml=(*image, *colors),
    )
    if good and report.labelled:
        report = _with_labels(report, dataset, good, training)
    return replace(report, problems=tuple(sorted(report.problems, key=lambda problem: not problem.error)))


def _with_labels(report: Report, dataset: Dataset, good: Sequence[Observed], training: bool) -> Report:
    """The report with what the label maps show."""
    names, table, pixels = dataset.labels.classes, dataset.labels.table, _pixels(good)
    share, images = _by_class(pixels, good, table, len(names))
    order = [label for label in np.argsort(-share, kind="stable").tolist() if images[label]]
    unlabelled = [sample.labels for sample, image in good if (table[image.values] == IGNORE).all()]
    ignored = float(pixels[table == IGNORE].sum() / pixels.sum())
    never = tuple(name for name, count in zip(names, images, strict=True) if not count)
    problems, mistake = _misread(dataset, good, pixels)
    if training and never and not problems:
        problems = [Problem("class_absent", False, f"classes that never occur: {some(never)}")]
    problems += [*_suspicious(dataset, good, pixels, training), *_ignored(unlabelled, ignored, len(good))]
    return replace(
        report,
        ignored=ignored,
        all_ignored=len(unlabelled),
        classes=tuple((names[label], float(share[label]), int(images[label])) for label in order),
        never=never,
        objects=objects.figures_of(dataset.labels, [(image.values, image.counts, image.places) for _, image in good]),
        problems=(*report.problems, *problems),
        yaml=(*(mistake.yaml if mistake else ()), *report.yaml),
    )


def _pixels(good: Sequence[Observed]) -> NDArray[np.int64]:
    """Pixels of each raw value (65536)."""
    pixels = np.zeros(65536, dtype=np.int64)
    for _, image in good:
        pixels[image.values] += image.counts
    return pixels


def _by_class(
    pixels: NDArray[np.int64], good: Sequence[Observed], table: NDArray[np.int16], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Share of the pixels, and images, of each class."""
    share, images = np.zeros(classes), np.zeros(classes, dtype=np.int64)
    for value in np.flatnonzero(pixels):
        if table[value] > IGNORE:
            share[table[value]] += pixels[value] / pixels.sum()
    for _, image in good:
        labels = table[image.values]
        images[np.unique(labels[labels > IGNORE])] += 1
    return share, images


def _sizes(observations: Sequence[Observation]) -> dict[str, tuple[int, int]]:
    ordered = sorted((image.height * image.width, image.width, image.height) for image in observations)
    ranks = {"min": 0, "median": len(ordered) // 2, "max": -1} if ordered else {}
    return {name: ordered[rank][1:] for name, rank in ranks.items()}


def _misread(
    dataset: Dataset, good: Sequence[Observed], pixels: NDArray[np.int64]
) -> tuple[list[Problem], Mistake | None]:
    """Values that are no class, by file, and what they may be; a binary mask passes for a class and ignored pixels."""
    table, samples = dataset.labels.table, [sample for sample, _ in good]
    values = np.flatnonzero(pixels)
    unknown = [str(value) for value in values.tolist() if table[value] < IGNORE]
    if not unknown:
        if len(dataset.labels.classes) < 2 or values.tolist() != [0, 255] or table[255] != IGNORE:
            return [], None
        mistake = known_mistakes.binary(dataset)
        return [
            Problem(mistake.kind, True, mistake.advice, len(good), tuple(s.labels for s in samples[:LISTED]))
        ], mistake
    files = [f"{sample.labels}: {outside}" for sample, image in good if (outside := _outside(image, table))]
    mistake = known_mistakes.mistake_in(dataset, pixels, samples, len(files))
    where = f" of {dataset.source}" if known_mistakes.is_own(dataset) else ""
    text = f"{counted(len(files))} with values outside the label space{where}: {some(unknown)}; {mistake.advice}"
    return [Problem(mistake.kind, True, text, len(files), tuple(files[:LISTED]))], mistake


def _outside(image: Observation, table: NDArray[np.int16]) -> str:
    """The values of an image that are no class, and their pixels."""
    strange = np.flatnonzero(table[image.values] < IGNORE)
    return some([f"{image.values[i]} ({image.counts[i]:,} pixels)" for i in strange], 6)


def _suspicious(dataset: Dataset, good: Sequence[Observed], pixels: NDArray[np.int64], training: bool) -> list[Problem]:
    """Legal values that hardly mean what they say."""
    ramps = [sample.labels for sample, image in good if image.ramps]
    samples = [sample for sample, _ in good]
    problems = []
    if ramps:
        text = (
            f"{counted(len(ramps))} with many values along the edges: resized with interpolation, which invents "
            "labels; resize label maps with nearest neighbour"
        )
        # one may be an odd scene, a fifth is how the set was made
        error = len(ramps) >= 0.2 * len(good)
        problems.append(Problem("interpolated", error, text, len(ramps), tuple(ramps[:LISTED])))
    mistake = known_mistakes.suspicious(dataset, pixels, samples, training)
    if mistake:
        problems.append(Problem(mistake.kind, False, mistake.advice))
    return problems


def _ignored(unlabelled: Sequence[str], share: float, images: int) -> list[Problem]:
    if len(unlabelled) == images:
        return [Problem("all_ignored", True, "every pixel of every image is ignored: is the ignored value a class?",
                        images, tuple(unlabelled[:LISTED]))]  # fmt: skip
    problems = []
    if unlabelled:
        text = f"{counted(len(unlabelled))} with nothing but ignored pixels: they teach nothing"
        problems.append(Problem("image_ignored", False, text, len(unlabelled), tuple(unlabelled[:LISTED])))
    if share >= _THIRD:
        text = (
            f"{share:.0%} of the pixels are ignored; if they show a class, such as background, name their value under "
            "classes"
        )
        problems.append(Problem("mostly_ignored", False, text))
    return problems


# As text


def lines_of_report(report: Report) -> list[str]:
    """The report of one split for people, without its classes."""
    lines = [f"{report.dataset} {report.split}: {report.images:,} images"]
    if report.sizes:
        sizes = ", ".join(f"{name} {width} x {height}" for name, (width, height) in report.sizes.items())
        lines.append(f"  sizes: {sizes}")
    if report.kinds:
        lines.append("  files: " + some([f"{count:,} {kind}" for kind, count in report.kinds.items()], 6))
    lines += [f"  {line}" for line in channels.lines_of(report.values)]
    if not report.labelled:
        lines.append("  no labels")
    elif report.sizes:
        lines.append(f"  ignored: {report.ignored:.1%} of pixels, {report.all_ignored:,} images entirely")
    lines += [f"  {line}" for line in objects.lines_of(report.objects)]
    if report.never and report.sizes:
        lines.append(f"  never: {', '.join(report.never)}")
    for problem in report.problems:
        lines += [f"  {'error' if problem.error else 'warning'}: {problem.text}"]
        lines += [f"    {line}" for line in listed(problem)]
    if report.yaml:
        lines += [f"  for {report.source}:", *(f"    {line}" for line in report.yaml)]
    return lines


def class_table(reports: Sequence[Report]) -> list[str]:
    """The classes of the splits of one dataset, a row each: share of all pixels and images in each split.

    In the order of the first split; nothing where no split has classes.
    """
    reports = [report for report in reports if report.classes]
    names = list(dict.fromkeys(name for report in reports for name, _, _ in report.classes))
    if not names:
        return []
    found = [{name: (f"{share:.3%}", f"{images:,}") for name, share, images in report.classes} for report in reports]
    heads = [(f"{report.split} pixels", "images") for report in reports]
    first = max(len(name) for name in (*names, "class"))
    widths = [(max(len(pixels), 9), 8) for pixels, _ in heads]
    rows = [("class", heads), *((name, [known.get(name, ("-", "-")) for known in found]) for name in names)]
    return [
        f"    {name:<{first}}"
        + "".join(f"  {a:>{wide}}{b:>{slim}}" for (a, b), (wide, slim) in zip(cells, widths, strict=True))
        for name, cells in rows
    ]


def listed(problem: Problem, most: int = LISTED) -> list[str]:
    """The first files of a problem, and how many more there are."""
    shown = list(problem.files[:most])
    left = problem.count - len(shown)
    return [*shown, f"and {left:,} more"] if shown and left > 0 else shown


def report_json(reports: Sequence[Report]) -> dict[str, Any]:
    """All reports, for programs."""
    errors, warnings = _counts(reports)
    return {"errors": errors, "warnings": warnings, "datasets": [report.as_json() for report in reports]}


def report_text(reports: Sequence[Report]) -> str:
    """All reports and the sum of what is wrong."""
    errors, warnings = _counts(reports)
    lines = []
    for dataset, some_reports in groupby(reports, key=lambda report: report.dataset):
        splits = list(some_reports)
        lines += [line for report in splits for line in lines_of_report(report)]
        table = class_table(splits)
        lines += [f"{dataset}: classes", *table, ""] if table else [""]
    text = "\n".join([*lines, f"errors: {errors}, warnings: {warnings}"])
    return text.encode("utf-8", "backslashreplace").decode()  # file names may hold bytes that are no text


def _counts(reports: Sequence[Report]) -> tuple[int, int]:
    """Errors and warnings."""
    wrong = [problem.error for report in reports for problem in report.problems]
    return sum(wrong), len(wrong) - sum(wrong)


def expect_sound(reports: Sequence[Report], strict: bool) -> None:
    """Raises DatasetError, which says how much there is, when reports that were shown have errors, or warnings."""
    errors, warnings = _counts(reports)
    parts = [(errors, "error", "errors")] + [(warnings, "warning", "warnings")] * strict
    found = [f"{count} {one if count == 1 else several}" for count, one, several in parts if count]
    if found:
        wrong = [f"{r.dataset} {r.split}" for r in reports if any(problem.error or strict for problem in r.problems)]
        raise DatasetError(f"{' and '.join(found)} in {', '.join(dict.fromkeys(wrong))}; the report says which")


def refuse_errors(reports: Sequence[Report]) -> None:
    """Raises DatasetError when there are errors: the first ten files, 40 lines."""
    wrong = [(r, problem) for r in reports for problem in r.problems if problem.error]
    if not wrong:
        return
    lines, left = [], LISTED
    for report, problem in wrong:
        files = listed(problem, left)
        left -= min(left, len(problem.files))
        lines += [f"{report.dataset} {report.split}: {problem.text}", *(f"  {line}" for line in files)]
    for report in reports:
        lines += [f"for {report.source}:", *(f"  {line}" for line in report.yaml)] if report.yaml else []
    if len(lines) > _LINES - 1:
        lines = [*lines[: _LINES - 2], f"and {len(lines) - _LINES + 2} more lines; `mdp check` shows all"]
    text = "\n".join(["the data check found:", *lines])
    raise DatasetError(text.encode("utf-8", "backslashreplace").decode())
