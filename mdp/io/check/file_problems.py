"""What is wrong with files, whatever their labels mean: unreadable, damaged, turned, repeated, of several pictures."""

from collections import Counter
from collections.abc import Sequence

from mdp.io.check import known_mistakes
from mdp.io.check.problem import LISTED, Observed, Problem, counted
from mdp.io.check.scan import Observation
from mdp.io.datasets._dataset import Dataset
from mdp.io.files.label_maps import edge_advice

_COLOR_LINES = 30  # colours that are proposed
# of line feeds in photos, so many come after a carriage return: 0.59 to 0.71 of 1/256, in 100 MB of five sets
_PAIRS = 0.6 / 256
_EXPECTED = 9.0  # such pairs: that chance leaves out so many happens once in 8,000 sets


def unreadable(dataset: Dataset, observations: Sequence[Observation]) -> tuple[list[Problem], tuple[str, ...]]:
    """Files that cannot be read, by what is wrong; and the lines that would read colour maps."""
    advice = {
        "colors": known_mistakes.colored(dataset),
        "size": "a label map must have its photo's size",
        "damaged": "copy or fetch them again, or leave them out by a `list:` file of the split",
    }
    by_kind: dict[str, list[str]] = {}
    for error in (image.error for image in observations if image.error):
        by_kind.setdefault(_kind_of(error), []).append(error.splitlines()[0].split("; add to the dataset")[0])
    colored = [image for image in observations if image.strange]
    edges, lines = _edges(colored), _color_lines(dataset, colored)
    if edges:
        advice["colors"] = edges if len(lines) <= 1 else f"{advice['colors']}; {edges}"
    problems = []
    for kind, files in by_kind.items():
        text = "; ".join([f"{counted(len(files))} cannot be used", *([advice[kind]] if kind in advice else [])])
        listed = [line.split("; ")[0] if kind == "colors" else line for line in files[:LISTED]]
        problems.append(Problem(kind, True, text, len(files), tuple(listed)))
    return problems, lines if known_mistakes.is_own(dataset) else ()


def _kind_of(error: str) -> str:
    """A word for what a reader says."""
    words = {
        "colors": ("colours are in no class", "needs a colour table"),
        "size": ("must be of one size",),
        "lossy": ("a JPEG file: lossy",),
        "missing": ("is missing",),
        "bands": ("such as `image: {",),
        "damaged": ("damaged", "is empty", "a web page", "Git LFS"),
        "unknown_values": ("outside the label space", "label values outside"),
    }
    return next((kind for kind, marks in words.items() if any(mark in error for mark in marks)), "unreadable")


def _edges(colored: Sequence[Observation]) -> str:
    """The advice for colours between those of classes; "" where there are none."""
    strange = [image.strange for image in colored if image.strange]
    pixels = sum(entry.edges[1] for entry in strange)
    most = max((entry.edges[0] for entry in strange), default=0)
    return edge_advice(most, pixels, sum(entry.pixels for entry in strange)) if pixels else ""


def _color_lines(dataset: Dataset, colored: Sequence[Observation]) -> tuple[str, ...]:
    """The YAML lines that would read colour maps, the colour with the most pixels first."""
    strange = [image.strange for image in colored if image.strange]
    colors: Counter[int] = Counter()
    for entry in strange:
        colors.update(entry.colors)
    first = len(dataset.labels.classes) if any(entry.declared for entry in strange) else 0
    lines = [
        f'  {index}: {{name: class_{index}, colors: ["#{color:06x}"]}}  # {pixels} pixels'
        for index, (color, pixels) in enumerate(colors.most_common(_COLOR_LINES), first)
    ]
    soft = ("edges: nearest  # or: ignore",) if any(entry.edges[0] for entry in strange) else ()
    return (*(("# with your names", "classes:", *lines) if lines else ()), *soft)


# Files that can be read, and are odd


def odd_files(dataset: Dataset, good: Sequence[Observed]) -> list[Problem]:
    """What is odd about files that were read."""
    return [
        *_palettes(dataset, good), *_objections(good), *_converted(good), *_pages(good),
        *([] if dataset.photos.exif else _rotated(good)),
        *_repeated(good),
    ]  # fmt: skip


def _palettes(dataset: Dataset, good: Sequence[Observed]) -> list[Problem]:
    """Palette files that are read by value, of which one says of a value what another does not."""
    first: dict[int, tuple[str, str]] = {}
    differ, pixels = [], 0
    for sample, image in good:
        odd = []
        for value, color in image.palette:
            file, before = first.setdefault(value, (sample.labels, color))
            if before != color:
                odd.append(f"{value} is {color}, in {file} {before}")
                pixels += int(image.counts[image.values == value].sum())
        if odd:
            differ.append(f"{sample.labels}: {'; '.join(odd[:4])}")
    if not differ:
        return []
    share = pixels / sum(int(image.counts.sum()) for _, image in good)
    text = (
        f"{counted(len(differ))} in whose palettes a value has another colour than in the files before, on {share:.2%} "
        "of the pixels: where the colours are the classes, name them under `colors:`; where the numbers are, save the "
        "label maps in grey"
    )
    return [Problem("palettes", known_mistakes.is_own(dataset), text, len(differ), tuple(differ[:LISTED]))]


def _objections(good: Sequence[Observed]) -> list[Problem]:
    files = [f"{sample.image}: {image.objection}" for sample, image in good if image.objection]
    text = (
        f"{counted(len(files))} that a strict decoder finds damaged; what is missing is made up by another: look at "
        "them, and copy or fetch them again"
    )
    return [Problem("strict", False, text, len(files), tuple(files[:LISTED]))] if files else []


def _converted(good: Sequence[Observed]) -> list[Problem]:
    """Photos whose line ends were converted as if they were text, by what chance would have left in them."""
    seen = [(sample.image, image.line_ends) for sample, image in good if image.line_ends]
    remedy = (
        "their line ends were converted as if they were text, by Git (`*.jpg binary` is missing in .gitattributes) or "
        "FTP: they look whole and are damaged; take the originals"
    )
    problems = []
    expected = _PAIRS * sum(ends.line_feeds for _, ends in seen)
    if expected >= _EXPECTED and not any(ends.pairs for _, ends in seen):
        text = (
            f"none of {counted(len(seen))} holds the bytes CR LF, which by chance occur about {expected:.0f} times in "
            f"so many: {remedy}"
        )
        problems.append(Problem("line_ends", False, text, len(seen), tuple(file for file, _ in seen[:LISTED])))
    files = [file for file, ends in seen if ends.pairs == ends.line_feeds >= _EXPECTED]
    if files:
        text = f"{counted(len(files))} in which every LF comes after CR: {remedy}"
        problems.append(Problem("line_ends", False, text, len(files), tuple(files[:LISTED])))
    return problems


def _pages(good: Sequence[Observed]) -> list[Problem]:
    several = [
        (file, count)
        for sample, image in good
        for file, count in zip((sample.image, sample.labels), image.pictures, strict=True)
        if count > 1
    ]
    files = [f"{file}: {count} pictures" for file, count in several]
    left = sum(count - 1 for _, count in several)
    text = (
        f"{counted(len(files))} with several pictures, of which the first is read and {left:,} are left out; save each "
        "as a file of its own where they are to be used"
    )
    return [Problem("pages", False, text, len(files), tuple(files[:LISTED]))] if files else []


def _rotated(good: Sequence[Observed]) -> list[Problem]:
    files = [f"{sample.image}: orientation {image.orientation}" for sample, image in good if image.orientation != 1]
    text = (
        f"{counted(len(files))} with an EXIF orientation, which is applied to neither photos nor label maps; where "
        "photos do not lie as their labels do, `image: {exif: photo}` turns the photos, `{exif: both}` both"
    )
    return [Problem("exif_orientation", False, text, len(files), tuple(files[:LISTED]))] if files else []


def _repeated(good: Sequence[Observed]) -> list[Problem]:
    """Photos that are in one split more than once."""
    first: dict[str, str] = {}
    again = []
    for sample, image in good:
        if image.pixel_hash in first:
            again.append(f"{sample.image} is {first[image.pixel_hash]}")
        first.setdefault(image.pixel_hash, sample.image)
    text = f"{counted(len(again))} with the pixels of another photo of the split: it counts twice"
    return [Problem("repeated", False, text, len(again), tuple(again[:LISTED]))] if again else []
