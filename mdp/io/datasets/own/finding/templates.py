"""Templates of file names, such as `{id}_rgb.png`: what stands for `{id}` in a photo's name names its label map.

A template of one part is compared with a file's name, one of several, `camera/{id}.png`, with as many last parts of
its path; the folders above are those of the label map too.  `.*` at the end is any ending.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import printable, shown

_FIELD = re.compile(r"\{(\w+)\}")
_FIELDS = 4  # in a part of a path: how long a name is compared grows with their number
_BETWEEN = "_-. "


class Match(NamedTuple):
    """A path that a template fits."""

    folder: str  # above the template's parts; ends with / unless it is empty
    fields: Mapping[str, str]


class Template(NamedTuple):
    """A template and the expression that it is compared with."""

    text: str
    lazy: re.Pattern[str]
    greedy: re.Pattern[str]  # finds other fields only where the template fits in several ways

    @property
    def fields(self) -> set[str]:
        """The words in its braces."""
        return set(_FIELD.findall(self.text))

    def match(self, path: str, folder: Path) -> Match | None:
        """What a path, below the folder, has in the template's places; None where it does not fit.

        Raises DatasetError where there are several ways to see it.
        """
        found = self.lazy.fullmatch(path)
        if found is None:
            return None
        other = self.greedy.fullmatch(path)
        if other is None or found.groupdict() != other.groupdict():
            where = f"{printable(folder / path)}: fits the template {shown(self.text)} in several ways"
            raise DatasetError(f"{where}; write more of what all names have")
        fields = found.groupdict()
        return Match(fields.pop("_folder"), fields)

    def fill(self, match: Match) -> str:
        """The path that the template makes of what another has found."""
        return match.folder + _FIELD.sub(lambda field: match.fields[field[1]], self.text)


def template(text: str, where: str) -> Template:
    """Reads a template.  Raises RecipeError, `where` before it, for one that names no file or several."""
    example = 'expected a template such as "{stem}_gt.png"'
    if not _FIELD.search(text) or "{" in _FIELD.sub("", text) or "}" in _FIELD.sub("", text):
        raise RecipeError(f"{where}: {example}, got {shown(text)}")
    if "}{" in text:
        raise RecipeError(f"{where}: {example}, with something between two fields, got {shown(text)}")
    if any(len(_FIELD.findall(part)) > _FIELDS for part in text.split("/")):
        raise RecipeError(f"{where}: {example} of at most {_FIELDS} fields, got {shown(text)}")
    if any(name.startswith("_") or name[0].isdigit() for name in _FIELD.findall(text)):
        raise RecipeError(f"{where}: {example}, whose fields are words, got {shown(text)}")
    return Template(text, _expression(text, "+?"), _expression(text, "+"))


def _expression(text: str, repeat: str) -> re.Pattern[str]:
    parts, seen = [r"(?P<_folder>(?:[^/]+/)*)"], set[str]()
    body, ending = (text[:-2], r"\.[^./]+") if text.endswith(".*") else (text, "")
    for position, part in enumerate(_FIELD.split(body)):
        if position % 2 == 0:
            parts.append(re.escape(part))
        else:
            parts.append(f"(?P={part})" if part in seen else f"(?P<{part}>[^/]{repeat})")
            seen.add(part)
    return re.compile("".join(parts) + ending)


def proposal(photos: Sequence[str], labels: Sequence[str]) -> tuple[str, str] | None:
    """Templates by which most photos have a label map of their own, as a hint for people; None if there are none.

    >>> proposal(["img_0.jpg", "img_1.jpg"], ["mask_0.png", "mask_1.png"])
    ('img_{id}.jpg', 'mask_{id}.png')
    """
    there = set(labels)
    scored = []
    for image, label in _candidates(photos[0], labels) if photos else ():
        templates = template(image, ""), template(label, "")
        made = [_made(*templates, path) for path in photos[:200]]
        hits = sum(path in there and path != photo for path, photo in zip(made, photos, strict=False))
        scored.append((hits, -len(image) - len(label), image, label))
    best = max(scored, default=None)
    return best[2:] if best and best[0] >= 0.4 * len(photos[:200]) else None


def _made(image: Template, label: Template, path: str) -> str:
    try:
        match = image.match(path, Path())
    except DatasetError:
        return ""
    return label.fill(match) if match else ""


def _candidates(photo: str, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of templates that turn a photo's path into that of a label map, those that change least first."""
    found: dict[tuple[str, str], int] = {}
    for path in labels[:5000]:
        if path == photo:
            continue
        (stem, ending), (other, other_ending) = (_split(text) for text in (photo, path))
        front = _common(stem, other)
        back = _common(stem[front:][::-1], other[front:][::-1])
        front = len(stem[:front].rstrip(_BETWEEN))  # what separates words belongs to what changes
        back = len(stem[len(stem) - back :].lstrip(_BETWEEN))
        changed = stem[front : len(stem) - back], other[front : len(other) - back]
        above = stem[:front].rpartition("/")[2]  # folders above are the same on both sides
        ends = "{id}" if above else "", ("{rest}" if above else "{id}") if back else ""
        if any(ends):
            image, label = (f"{ends[0]}{part}{ends[1]}" for part in _same_fields(*changed))
            pair = image + ending, label + other_ending
            if "{" not in photo + path and "}{" not in "".join(pair):
                found[pair] = len(changed[0] + changed[1])
    return sorted(found, key=lambda pair: (found[pair], pair))[:20]


def _same_fields(one: str, other: str) -> tuple[str, str]:
    """Both texts with a field for each word with a digit that stands at the same place of both."""
    words = re.split(r"([/_. -]+)", one), re.split(r"([/_. -]+)", other)
    if len(words[0]) != len(words[1]) or words[0][1::2] != words[1][1::2]:
        return one, other
    for position, (word, same) in enumerate(zip(*words, strict=True)):
        if word == same and re.search(r"\d", word):
            words[0][position] = words[1][position] = f"{{part{position // 2}}}"
    return "".join(words[0]), "".join(words[1])


def _split(path: str) -> tuple[str, str]:
    ending = PurePosixPath(path).suffix
    return path[: len(path) - len(ending)], ending


def _common(one: str, other: str) -> int:
    """How many first characters are the same."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
