"""Which files of a run's data are others than they were: by content, with names for people."""

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mdp.io.data.identity import READ_OTHERWISE, Change, changes_by_digest, label_change
from mdp.io.data.manifest import CRC, NONE, DataPart, Files, Mark, content_of
from mdp.io.errors import MdpError
from mdp.io.files.reading import read_bytes
from mdp.label_space import LabelSpace


def changes(before: Sequence[DataPart], now: Sequence[DataPart]) -> list[Change]:
    """The differences of each dataset, none where all is as it was."""
    old = {(part.dataset, part.role): part for part in before}
    new = {(part.dataset, part.role): part for part in now}
    found = [_change(old[key], part) for key, part in new.items() if key in old]
    others = [
        [part.digest() for key, part in side.items() if key not in both] for side, both in ((old, new), (new, old))
    ]
    return [*filter(None, found), *changes_by_digest(*others)]


def _change(before: DataPart, now: DataPart) -> Change:
    old, new = before.photos.names, now.photos.names
    reading = READ_OTHERWISE if before.reading != now.reading else ""
    change = Change(now.digest().name, len(old), len(new), reading=reading)
    if len(old) == len(new):
        same = [_differing(before, now, range(len(new)), range(len(new)), role) for role in ("photos", "labels")]
        if old == new or not any(same):  # a folder that was renamed holds the same data
            return change._replace(photos=_names(now.photos, same[0]), labels=_names(now.labels, same[1]))
    before_keys, now_keys = counted(old), counted(new)
    places = {key: index for index, key in enumerate(before_keys)}
    there = set(now_keys)
    common = [(places[key], index) for index, key in enumerate(now_keys) if key in places]
    olds, news = [pair[0] for pair in common], [pair[1] for pair in common]
    return change._replace(
        added=[name for name, count in now_keys if (name, count) not in places],
        removed=[name for name, count in before_keys if (name, count) not in there],
        photos=_names(now.photos, _differing(before, now, olds, news, "photos")),
        labels=_names(now.labels, _differing(before, now, olds, news, "labels")),
        reordered=olds != sorted(olds),
    )


def counted(names: Sequence[str]) -> list[tuple[str, int]]:
    """Each name with how often it was there before it: a photo may be in a list twice."""
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def _names(files: Files, indices: Sequence[int]) -> list[str]:
    return [files.names[index] for index in indices]


def _differing(before: DataPart, now: DataPart, olds: Sequence[int], news: Sequence[int], what: str) -> list[int]:
    """Those of the `news` whose file of that kind, photo or label map, holds something else than its old one."""
    old: Files = getattr(before, what)
    new: Files = getattr(now, what)
    was, is_now = (np.array(indices, dtype=np.intp) for indices in (olds, news))
    told = (old.marks[was][:, ::2] != new.marks[is_now][:, ::2]).any(axis=1)
    suspects = np.flatnonzero(told | (old.contents[was] != new.contents[is_now])).tolist()
    paths = [sample.image if what == "photos" else sample.labels for sample in now.samples] or [""] * len(new.names)
    return [news[i] for i in suspects if not _same(old.mark(olds[i]), new.mark(news[i]), paths[news[i]])]


def _same(before: Mark, now: Mark, path: str) -> bool:
    """Whether two marks of different kinds are of one content: what was unpacked, or packed, is the same."""
    if before.kind == now.kind:
        return before.content == now.content and before.size == now.size
    if before.size != now.size or NONE in (before.kind, now.kind) or not path:
        return False
    try:
        data = read_bytes(path, "file")
    except MdpError:
        return False
    return (zlib.crc32(data) if before.kind == CRC else content_of(data, path)) == before.content


def with_labels(found: Sequence[Change], before: Sequence[LabelSpace], now: Sequence[LabelSpace]) -> list[Change]:
    """The changes, where files are read otherwise with the class or value that shows it first."""
    old, new = ({space.name: space for space in spaces} for spaces in (before, now))
    told = []
    for change in found:
        name = change.name.rpartition(" ")[0]
        text = label_change(old[name], new[name]) if change.reading and name in old and name in new else ""
        told.append(change._replace(reading=text or change.reading))
    return told
