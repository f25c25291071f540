"""What fields of settings say of themselves: type, bounds, words and default, and the comment beside them.

All that a command line or a table of settings says of a setting is taken from here, so that it stands in one place.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from functools import cache
from itertools import takewhile
from typing import Any, NamedTuple, get_args, get_type_hints

from mdp.bounds import Bounds, Words, bounds_of, words_of
from mdp.given import Given, Switches, given_of
from mdp.io.recipe.words import names, numbers


class Field(NamedTuple):
    """A field of a class as its source states it."""

    name: str
    lines: list[str]
    comment: str  # at the end of the last line, and in the lines below that are comments only


def fields_of(kind: type) -> Iterator[Field]:
    """The fields of a class, its bases' first."""
    for base in reversed(kind.__mro__):
        lines = textwrap.dedent(inspect.getsource(base)).split("\n") if base.__module__.startswith("mdp.") else []
        body = ast.parse("\n".join(lines)).body
        for node in body[0].body if body and isinstance(body[0], ast.ClassDef) else []:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
                own = [line.strip() for line in lines[node.lineno - 1 : node.end_lineno]]
                more = list(takewhile(lambda line: line.startswith("#"), map(str.strip, lines[node.end_lineno :])))
                comments = [lines[node.end_lineno - 1][node.end_col_offset or 0 :].partition("#")[2], *more]
                yield Field(node.target.id, own + more, " ".join(line.strip("# ") for line in comments).strip())


def comments_of(kind: type) -> dict[str, str]:
    """The comments beside the fields of a class, each behind the words that the field may be, if these are few."""
    words = {name: " | ".join(known) for name, known in words_of(kind).items()}
    return {name: ": ".join(filter(None, (words.get(name), comment))) for name, comment in _own_comments(kind).items()}


@cache
def _own_comments(kind: type) -> dict[str, str]:
    """The comments as they stand; a field that has none takes that of the base's."""
    comments: dict[str, str] = {}
    for field in fields_of(kind):
        comments[field.name] = field.comment or comments.get(field.name, "")
    return comments


class Stated(NamedTuple):
    """What a field's type and default say."""

    kind: Any  # without None and without bounds
    bounds: Bounds | None
    words: Words | None
    default: Any  # MISSING: it has none
    given: Given


@cache
def stated(kind: type) -> dict[str, Stated]:
    """The fields of a class by their names; of several bounds the first."""
    hints, bounds, words = get_type_hints(kind), bounds_of(kind), words_of(kind)
    return {
        field.name: Stated(_without_none(hints[field.name]), next(iter(bounds.get(field.name, ())), None),
                           words.get(field.name), field.default, given_of(kind, field.name))
        for field in fields(kind)
    }  # fmt: skip


def owner(key: str, question: type | None) -> type | None:
    """The class that has the field of a key: of `section.name` the section, of a name the question, or the switches.

    None where that is not plain data.
    """
    section, _, name = key.rpartition(".")
    if section:
        from mdp.io.recipe.settings import SECTIONS  # noqa: PLC0415 - what answers at once asks for none
    kinds = (SECTIONS.get(section),) if section else (question, Switches)
    return next((kind for kind in kinds if kind and name in stated(kind)), None)


def reader(field: Stated) -> Callable[[Any], Any] | None:
    """What makes the values of words between commas, where the field is several."""
    if get_args(field.kind) == (float, ...):
        return lambda text: tuple(numbers(text, such_as=field.given.shown))
    return names if field.given.commas else None


def _without_none(hint: Any) -> Any:
    parts = [part for part in get_args(hint) if part is not type(None)]
    return parts[0] if len(parts) == 1 and type(None) in get_args(hint) else hint


def sentence(kind: type, name: str, with_default: bool) -> str:
    """The comment beside a field as a sentence, with the default, or what it says that None stands for.

    >>> from mdp.io.recipe.settings import RunSettings
    >>> sentence(RunSettings, "workers", True)
    'Loader processes; 0: this one [default: 2, on CUDA by cores].'
    """
    comment = _own_comments(kind)[name]
    default = stated(kind)[name].default
    if with_default and default not in (MISSING, None, False, True, "", ()):
        comment = f"{comment}; None: {default}"
    text = re.sub(r";? ?None: (.*)$", r" [default: \1]", comment)
    starts = text if text.partition(" ")[2].startswith("|") else text[:1].upper() + text[1:]  # a list of words
    return f"{starts}."
