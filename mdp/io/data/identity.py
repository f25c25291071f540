"""The identity of a run's data in a few words and digests, as checkpoints and comparisons keep it, and what differs.

Nothing here reads a file or needs NumPy; `manifest.py` looks at the files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mdp.io.files.reading import printable
from mdp.label_space import IGNORE, LabelSpace

ROLES = {"train": "to train on", "val": "to score"}


class DataDigest(NamedTuple):
    """The data that one dataset gives to a run: digests of its files' contents, in order, and of how they are read."""

    dataset: str
    role: str  # a key of ROLES
    images: int
    photos: str
    labels: str
    reading: str  # of label space and description

    @property
    def name(self) -> str:
        """Dataset and role, for people."""
        return f"{self.dataset} {self.role}"


class Change(NamedTuple):
    """The differences between the data of one dataset as they were and as they are."""

    name: str  # dataset and role
    before: int  # images
    now: int
    added: Sequence[str] = ()  # photos
    removed: Sequence[str] = ()
    photos: Sequence[str] = ()  # of which the content is another
    labels: Sequence[str] = ()
    reordered: bool = False
    unlisted: str = ""  # what differs, where nothing tells which files
    reading: str = ""  # how values are read

    @property
    def other_images(self) -> bool:
        """Whether samples came, went or moved, so that the same step would take other ones."""
        return bool(self.added or self.removed or self.reordered or self.unlisted)

    def __bool__(self) -> bool:
        return self.other_images or bool(self.photos or self.labels or self.reading)

    def __str__(self) -> str:
        counts = f" ({self.before:,} images before, {self.now:,} now)" if self.before != self.now else ""
        return self._told("added", "removed", "changed") + counts

    def between(self) -> str:
        """The same in words for two places in stead of two times."""
        counts = f" ({self.now:,} images, not {self.before:,})" if self.before != self.now else ""
        return self._told("too many", "missing", "different") + counts

    def _told(self, added: str, removed: str, changed: str) -> str:
        parts = [
            f"{_files(self.added, 'image')} {added}" if self.added else "",
            f"{_files(self.removed, 'image')} {removed}" if self.removed else "",
            f"{_files(self.photos, 'photo')} {changed}" if self.photos else "",
            f"{_files(self.labels, 'label map')} {changed}" if self.labels else "",
            "the same images in another order" if self.reordered else "",
            self.unlisted,
            self.reading,
        ]
        return f"{self.name}: {'; '.join(filter(None, parts))}"


def _files(names: Sequence[str], what: str) -> str:
    """A number of files and the first of their names."""
    some = ", ".join(printable(name) for name in names[:2]) + (", ..." if len(names) > 2 else "")
    return f"{len(names):,} {what}{'s' * (len(names) != 1)} ({some})"


def changes_by_digest(before: Sequence[DataDigest], now: Sequence[DataDigest]) -> list[Change]:
    """The datasets whose digests differ; which files is not known."""
    old = {digest.name: digest for digest in before}
    found = []
    for digest in now:
        was = old.get(digest.name)
        if was is None:
            found.append(Change(digest.name, 0, digest.images, unlisted="it was not there before"))
        elif was != digest:
            kinds = [what for what in ("photos", "labels") if getattr(was, what) != getattr(digest, what)]
            files = " and ".join("label maps" if what == "labels" else what for what in kinds)
            found.append(Change(
                digest.name, was.images, digest.images, unlisted=f"other {files} than before" if files else "",
                reading=READ_OTHERWISE if was.reading != digest.reading else "",
            ))  # fmt: skip
    names = {digest.name for digest in now}
    gone = (digest for digest in before if digest.name not in names)
    return found + [Change(digest.name, digest.images, 0, unlisted="it is not there any more") for digest in gone]


# How values are read

READ_OTHERWISE = "its description says otherwise how files are read"
_NOT_READING = ("name", "root", "splits", "home", "terms", "outside")  # keys of a YAML file that find files
_NOT_READING_SPLIT = ("images", "labels", "annotations", "label", "image", "list", "count")


def reading_digest(space: LabelSpace, description: Mapping[Any, Any]) -> str:
    """A digest of what turns files into labels: the label space, and what a dataset's YAML file says besides.

    Colours that classes are drawn in, comments and spelling do not count.
    """
    rest = {key: value for key, value in description.items() if key not in _NOT_READING}
    if not isinstance(rest.get("classes"), Mapping):
        rest.pop("classes", None)  # names alone, which the label space has
    splits = description.get("splits")
    more = [
        {key: value for key, value in split.items() if key not in _NOT_READING_SPLIT}
        for split in (splits.values() if isinstance(splits, Mapping) else ())
        if isinstance(split, Mapping)
    ]
    lookup = None if space.lookup is None else sorted(space.lookup.items())
    whole = [list(space.classes), space.ignore_index, lookup, _plain(rest), [_plain(split) for split in more if split]]
    whole += [list(map(list, space.ranges))] if space.ranges else []
    return hashlib.blake2b(json.dumps(whole).encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> Any:
    """A value of a YAML file in one spelling, without the colours that classes are drawn in."""
    if isinstance(value, Mapping):
        return sorted((repr(key), _plain(item)) for key, item in value.items() if key != "color")
    return [_plain(item) for item in value] if isinstance(value, list) else repr(value)


def label_change(before: LabelSpace, now: LabelSpace) -> str:
    """The first difference between two label spaces in words; "" without one.

    >>> label_change(LabelSpace(name="a", classes=("x", "y")), LabelSpace(name="a", classes=("x",)))
    "1 class now, 2 before: class 1, 'y', is gone"
    """
    text = class_change(before.classes, now.classes)
    if text:
        return text
    edges = {edge for space in (before, now) for first, last, _ in space.ranges for edge in (first, last, last + 1)}
    values = {*(before.lookup or {}), *(now.lookup or {}), *edges}
    for value in sorted(values):
        was, is_now = (_meaning(space, value) for space in (before, now))
        if was != is_now:
            return f"label value {value} is {is_now} now, {was} before"
    if before.ignore_index != now.ignore_index:
        return f"ignore_index is {now.ignore_index} now, {before.ignore_index} before"
    return ""


def class_change(before: Sequence[str], now: Sequence[str]) -> str:
    """The first class that differs, in words; "" where none does."""
    if tuple(before) == tuple(now):
        return ""
    counts = f"{_classes(len(now))} now, {len(before)} before: " if len(before) != len(now) else ""
    both = zip(before, now, strict=False)
    first = next((i for i, (was, is_now) in enumerate(both) if was != is_now), min(len(before), len(now)))
    if first >= len(now):
        return f"{counts}class {first}, {printable(repr(before[first]))}, is gone"
    if first >= len(before):
        return f"{counts}class {first}, {printable(repr(now[first]))}, is new"
    return f"{counts}class {first} is {printable(repr(now[first]))} now, {printable(repr(before[first]))} before"


def _classes(count: int) -> str:
    return "1 class" if count == 1 else f"{count} classes"


def _meaning(space: LabelSpace, value: int) -> str:
    """The class of a raw label value in words."""
    label = value if space.lookup is None else space.lookup.get(value)
    label = next((target for first, last, target in reversed(space.ranges) if first <= value <= last), label)
    if value == space.ignore_index or label == IGNORE:
        return "ignored"
    return "no class" if label is None or not 0 <= label < len(space.classes) else repr(space.classes[label])
