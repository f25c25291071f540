"""`--init`: which weights of a file a network starts from, judged by its parts, and the lines that tell people.

A part (the backbone and each of its stages; the head) is taken over when more than nine tenths of its tensors fit.
A backbone that does not is refused, and so is a head that fits by half, unless `--init-partial` says to take what
fits; a tensor of another shape is never taken, and a classifier neither: its outputs are another training's classes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdp.core.networks.identify import Recognised, backbone_for, recognise
from mdp.core.networks.transfer import Location, Match, locations, match_at
from mdp.io.errors import CheckpointError
from mdp.io.files.reading import printable, shown
from mdp.io.weights.reading import WeightsFile, read_file, skipped_line, translated_line

CLASSIFIER = ("decode_head.conv_seg.", "decode_head.regions.conv_seg.")  # of this run's classes
_COUNTER = ".num_batches_tracked"  # BatchNorm's, which nothing here reads and old files lack: it counts for nothing
_PARTIAL = "; --init-partial takes what fits"
_STEM = ("conv1", "bn1", "stem")
_LISTED = 6  # names in a line


class Row(NamedTuple):
    """How a part of the network fared."""

    part: str
    own: list[str]  # the network's tensors
    matched: list[str]
    missing: list[str]
    wrong_shape: list[str]


class Judged(NamedTuple):
    """A file's offer to a network."""

    location: Location | None  # of the weights that are taken
    left: list[Location]  # where most of it would fit as well
    match: Match
    rows: list[Row]  # the backbone's stem and stages, then the other parts
    problem: str  # why it is refused; "" when it is not
    notes: list[str]  # what people should know before they use it


def take(
    path: Path, network: nn.Module, parts: tuple[str, ...], start: str = "", partial: bool = False
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a file that the network starts from, by its own names and float32, and the lines to say.

    `start` is the path in the file before the backbone's names, where there are several; "" takes the best.
    Raises CheckpointError, saying why, when they do not fit; `partial` takes whatever does.
    """
    return take_of(path, read_file(path), network, parts, start, partial)


def take_of(
    path: Path,
    file: WeightsFile,
    network: nn.Module,
    parts: tuple[str, ...],
    start: str = "",
    partial: bool | None = False,
) -> tuple[dict[str, Tensor], list[str]]:
    """The same of a file that was read; with `partial` None nobody is told of it."""
    own = network.state_dict()
    judged = judge(file, own, parts, start, partial)
    if judged.problem:
        raise CheckpointError(f"{path}: {judged.problem} (`mdp inspect` lists all of it)")
    beside = [line for line in (translated_line(file), skipped_line(file)) if line]
    warnings = [f"note: {printable(path)}: {note}" for note in (*judged.notes, *beside)]
    return float32(judged.match.tensors), [_loaded(path, file, judged, own), *warnings]


def float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, fractions in single precision."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def judge(
    file: WeightsFile,
    network: Mapping[str, Tensor],
    parts: Sequence[str],
    start: str = "",
    partial: bool | None = False,
) -> Judged:
    """How much of a file fits the named parts of a network's `state_dict`, and whether that is enough."""
    own = {name: tensor for name, tensor in network.items() if not name.startswith(CLASSIFIER)}
    candidates = locations(file.tensors, own)
    chosen = [location for location in candidates if _begins(location, start)]
    missing = Match({}, [name for name in own if name.split(".")[0] in parts], list(file.tensors), {})
    if not chosen:
        return Judged(None, [], missing, _rows(own, missing, parts), _nowhere(file, candidates, start), [])
    location = chosen[0]
    match = match_at(file.tensors, own, parts, location)
    left = [other for other in candidates if other is not location and 2 * other.fits >= location.fits > 0]
    rows = _rows(own, match, parts)
    problem = _too_little(file, own, match, rows, partial)
    problem = problem or _tie(file, chosen, own) or _not_finite(match)
    notes = [] if problem else [*_adapted(match), *_notes(file, match, rows)]
    return Judged(location, left, match, rows, problem, notes)


def _begins(location: Location, start: str) -> bool:
    """Whether a location is the one that `--init-from` names, or inside it; a point is the outermost."""
    if start == ".":
        return "" in (location.prefix, location.backbone)
    return not start or location.backbone.startswith(f"{start.rstrip('.')}.")


def _rows(own: Mapping[str, Tensor], match: Match, parts: Sequence[str]) -> list[Row]:
    missing = set(match.missing)
    rows: dict[str, Row] = {}
    for name in own:
        if name.split(".")[0] in parts:
            row = rows.setdefault(part_of(name), Row(part_of(name), [], [], [], []))
            row.own.append(name)
            which = row.missing if name in missing else row.wrong_shape if name in match.wrong_shape else row.matched
            which.append(name)
    return list(rows.values())


def part_of(name: str) -> str:
    """The part of the network that a tensor belongs to.

    >>> [part_of(f"{name}.weight") for name in ("backbone.bn1", "backbone.layer1.0.conv1", "decode_head.bottleneck.bn")]
    ['stem', 'layer1', 'decode_head']
    """
    first, second = name.split(".")[:2]
    return first if first != "backbone" else "stem" if second in _STEM else second


# Why it is refused


def _nowhere(file: WeightsFile, candidates: Sequence[Location], start: str) -> str:
    if candidates:
        good = [location for location in candidates if 2 * location.fits >= candidates[0].fits]
        where = ", ".join(_path(location.backbone) or "." for location in good[:3])
        return f"--init-from {printable(start)}: no backbone begins there; the best places are {where}"
    names = ", ".join(shown(name) for name in list(file.tensors)[:3])
    named = f"; it is {file.translated}" if file.translated else ""
    named += f": set model.backbone={file.backbone}" if file.backbone else ""
    return f"none of its tensors has a name of the network's backbone; it has {names}, ...{named}"


def _tie(file: WeightsFile, candidates: Sequence[Location], own: Mapping[str, Tensor]) -> str:
    """Nothing prefers one of two locations that differ, so a person has to."""
    best = candidates[0]
    for other in candidates[1:]:
        if (other.fits, other.named, other.rank) != (best.fits, best.named, best.rank):
            break
        if not _same(*(match_at(file.tensors, own, ["backbone"], location).tensors for location in (best, other))):
            first, second = _path(best.backbone) or ".", _path(other.backbone) or "."
            return (
                f"two different backbones fit equally well ({best.fits} tensors), at {first} and at {second}; choose "
                f"with --init-from {first}"
            )
    return ""


def _same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def _too_little(
    file: WeightsFile, own: Mapping[str, Tensor], match: Match, rows: Sequence[Row], partial: bool | None
) -> str:
    """The first part of which too little fits; a head of which there is nothing at all may start at random."""
    backbone, *heads = whole_parts(rows)
    hint = "" if partial is None else _PARTIAL
    if partial and backbone.matched:
        return ""
    for row in (backbone, *(row for row in rows if _of_backbone(row))):
        if not _enough(row):
            what = "backbone" if row is backbone else f"backbone's {row.part}"
            return _few(what, row, match, own) + _other_network(file, own) + hint
    for row in heads:
        if not _enough(row) and (row.matched or row.wrong_shape):
            return _few(row.part, row, match, own) + "; --backbone-only leaves the head out (fine-tuning)" + hint
    return ""


def uncounted(row: Row) -> list[str]:
    """BatchNorm's counters, where a file has none of them, as old ones: that is no lack."""
    own = [name for name in row.own if name.endswith(_COUNTER)]
    return own if {*own} <= {*row.missing} else []


def whole_parts(rows: Sequence[Row]) -> list[Row]:
    """The rows with those of the backbone as one, which is the first."""
    inside = [row for row in rows if _of_backbone(row)]
    joined = Row("backbone", *([name for row in inside for name in row[field]] for field in range(1, 5)))
    return [joined, *(row for row in rows if not _of_backbone(row))]


def _of_backbone(row: Row) -> bool:
    return row.own[0].startswith("backbone.")


def _few(what: str, row: Row, match: Match, own: Mapping[str, Tensor]) -> str:
    count = len(row.own) - len(uncounted(row))
    text = f"only {len(row.matched)} of the {count} {what} tensors are in the file as the network has them"
    return text + _wrong(match, row.wrong_shape, own) + _absent(row.missing)


def _enough(row: Row) -> bool:
    """Whether more than nine tenths of a part are there."""
    own, matched = (sum(not name.endswith(_COUNTER) for name in names) for names in (row.own, row.matched))
    return 10 * matched > 9 * own or own == 0


def _wrong(match: Match, names: Sequence[str], own: Mapping[str, Tensor]) -> str:
    if not names:
        return ""
    theirs, ours = list(match.wrong_shape[names[0]]), list(own[names[0]].shape)
    there = f"{theirs} in the file, {ours} in the network" if theirs != ours else "whole numbers instead of fractions"
    have = "1 has" if len(names) == 1 else f"{len(names)} have"
    return f"; {have} another shape, such as {names[0]}: {there}"


def _absent(names: Sequence[str]) -> str:
    return f"; not in the file: {listed(names, 3)}" if names else ""


def _other_network(file: WeightsFile, own: Mapping[str, Tensor]) -> str:
    """The settings to change, where the file is a network that is known and not this one."""
    if file.backbone:
        return f"; the file has {file.translated}: set model.backbone={file.backbone}"
    theirs, ours = recognise(file.tensors), recognise(own)
    if theirs is None or ours is None or theirs == ours:
        return ""
    name = backbone_for(theirs)
    advice = f"the network is {in_words(ours)}: set model.backbone={name} and model.width={theirs.width}"
    advice = advice if name else "which is none of the networks here"
    return f"; the file has {in_words(theirs)}, {advice}"


def in_words(resnet: Recognised) -> str:
    """A ResNet in words.

    >>> in_words(Recognised("resnet50", 64, True, False, False))
    'resnet50 of width 64 with a stem of three convolutions (V1c)'
    """
    extras = [
        (resnet.deep_stem, "a stem of three convolutions (V1c)"),
        (resnet.pooled_shortcut, "pooling in its shortcuts (ResNet-D)"),
        (resnet.other_widths, "blocks of other widths (ResNeXt, Wide ResNet)"),
    ]
    text = " and ".join(words for there, words in extras if there)
    name = resnet.name or "a ResNet of another depth"
    width = "" if resnet.other_widths else f" of width {resnet.width}"
    return f"{name}{width}" + (f" with {text}" if text else "")


def _not_finite(match: Match) -> str:
    # as they will be used: a float64 number may be beyond float32
    bad = [name for name, tensor in float32(match.tensors).items() if not torch.isfinite(tensor).all()]
    return f"numbers in it are not finite, in {len(bad)} tensors: {listed(bad)}" if bad else ""


# What people should know


def _adapted(match: Match) -> list[str]:
    return [
        f"{name} is adapted from red, green and blue to {match.tensors[name].shape[1]} channels: its filters are "
        "repeated in order and scaled by 3 over the number of channels, or summed for one (timm's rule for in_chans)"
        for name in match.adapted
    ]


def _notes(file: WeightsFile, match: Match, rows: Sequence[Row]) -> list[str]:
    notes = []
    for row in whole_parts(rows):
        lost = [name for name in (*row.missing, *row.wrong_shape) if not name.endswith(_COUNTER)]
        lost = [name for name in lost if not _statistics(name, match)]
        if row.matched and lost:
            count = len(row.own) - len(uncounted(row))
            notes.append(f"{len(lost)} of {count} {row.part} tensors are not taken from it: {listed(lost)}")
    bare = [name for name in match.missing if _statistics(name, match) and name.endswith("running_var")]
    if bare:
        notes.append(
            f"{len(bare)} BatchNorm layers come without running statistics: they start at mean 0 and variance 1, which "
            "is wrong until training has moved them"
        )
    kinds = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in match.tensors.values() if _narrow(tensor))
    if kinds:
        notes.append(f"converted to float32: {', '.join(f'{count} {kind} tensors' for kind, count in kinds.items())}")
    if any("to_rgb=False" in text for text in file.others.values() if isinstance(text, str)):
        notes.append("the settings in it say to_rgb=False: it was trained on BGR images, and mdp gives it RGB")
    return notes


def _statistics(name: str, match: Match) -> bool:
    """Whether it is a running statistic of a BatchNorm layer whose weight is taken."""
    stem, _, last = name.rpartition(".")
    return last in ("running_mean", "running_var") and f"{stem}.weight" in match.tensors


def _narrow(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float32


# In words


def _loaded(path: Path, file: WeightsFile, judged: Judged, own: Mapping[str, Tensor]) -> str:
    """`loaded 318 of 318 backbone tensors from ...`, what starts at random and what is not used."""
    assert judged.location
    tensors, some = judged.match.tensors, [row for row in whole_parts(judged.rows) if row.matched]
    counts = [f"{len(row.matched)} of {len(row.own) - len(uncounted(row))} {row.part} tensors" for row in some]
    text = f"loaded {', '.join(counts)} from {printable(path)}{where(file, judged.location)}"
    absent = sum(len(uncounted(row)) for row in some)
    text += f"; BatchNorm's {absent} counters, which nothing here reads, are not in it" if absent else ""
    fresh = _groups(own, tensors)
    text += f"; starts at random: {listed(fresh)}" if fresh else ""
    unused = unused_groups(judged)
    return text + (f"; in the file, not used: {listed(list(unused))}" if unused else "")


def where(file: WeightsFile, location: Location) -> str:
    """The dictionary and the prefix that the weights lie under, and which they are; "" for a bare state_dict."""
    table, prefix = dictionary_and_prefix(file, location)
    words = [file.which] if file.which else []
    words += [f"dictionary {printable(table)}"] if table else []
    words += [f"names after {printable(prefix)}"] if prefix and prefix != "backbone." else []
    return f" ({', '.join(words)})" if words else ""


def dictionary_and_prefix(file: WeightsFile, location: Location) -> tuple[str, str]:
    """The dictionary of the file that a location is in, and what comes before the backbone's names there."""
    table = max((path for path in file.tables if location.backbone.startswith(f"{path}.")), key=len, default="")
    return table, location.backbone.removeprefix(f"{table}.") if table else location.backbone


def _groups(own: Mapping[str, Tensor], taken: Mapping[str, Tensor]) -> list[str]:
    """The groups of the network's tensors that nothing was taken for; whole parts by their name."""
    kept, parts = {_group(name) for name in taken}, {name.split(".")[0] for name in taken}
    fresh = [_group(name) if name.split(".")[0] in parts else name.split(".")[0] for name in own]
    return sorted({group for group in fresh if group not in kept})


def unused_groups(judged: Judged) -> dict[str, int]:
    """The sizes of what is in the file and not used, by groups of names without what leads to the weights."""
    root = judged.location.prefix.split(".")[:-1] if judged.location else []
    groups: Counter[str] = Counter()
    for name in judged.match.unexpected:
        others = (location.backbone for location in judged.left)
        other = next((prefix for prefix in others if prefix and name.startswith(prefix)), "")
        groups[_path(other) if other else printable(_group(_without(name, root)))] += 1
    return dict(sorted(groups.items()))


def _without(name: str, root: Sequence[str]) -> str:
    """The name without the parts that it shares with the root."""
    words = name.split(".")
    shared = 0
    while shared < min(len(root), len(words) - 1) and words[shared] == root[shared]:
        shared += 1
    return ".".join(words[shared:])


def _group(name: str) -> str:
    """The module that a tensor belongs to, in two words at most.

    >>> [_group(name) for name in ("decode_head.conv_seg.weight", "fc.0.weight", "queue")]
    ['decode_head.conv_seg', 'fc', 'queue']
    """
    words = name.split(".")
    words = words[:-1] or words
    numbered = next((i for i, word in enumerate(words) if word.isdigit() and i), len(words))
    return ".".join(words[: min(numbered, 2)])


def _path(prefix: str) -> str:
    return printable(prefix.rstrip("."))


def listed(names: Sequence[str] | Iterable[str], most: int = _LISTED) -> str:
    """The first names on one line, and how many there are besides."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name)[:120] for name in names[:most]) + more
