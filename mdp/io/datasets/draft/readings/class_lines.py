"""Classes of annotations as lines of a YAML file, with what pixels in no annotation may be."""

from collections.abc import Mapping, Sequence

from mdp.io.datasets.draft.text import class_line, plain

_BACKGROUNDS = ("_background_", "background", "bg", "backgrnd", "other", "rest")


def drawn_classes(
    names: Sequence[str],
    comments: Mapping[str, str] | None = None,
    overlap: str = "later",
    labels: Mapping[str, str] | None = None,
) -> tuple[list[str], list[str]]:
    """The lines below `classes:`, and those for background and overlap; `labels` are what the files call a class.

    Where a name says so it is the background; otherwise both readings stand there, one of them as a comment.
    """
    there = next((name for name in names if name.strip().lower() in _BACKGROUNDS), None)
    every = list(names) if there else ["background", *names]
    more = [f"background: {plain(there or 'background')}  # pixels in no annotation"]
    if there is None:
        more.append("# background: ignore  # in its place, where annotations do not cover all that they could; then")
        more.append("#                       without the class background")
    more.append(f"overlap: {overlap}  # of two annotations that overlap: later, smaller or ignore")
    entries = [{"name": name, "labels": [(labels or {})[name]]} if name in (labels or {}) else name for name in every]
    return [
        class_line(key, entry, (comments or {}).get(name, ""))
        for key, (name, entry) in enumerate(zip(every, entries, strict=True))
    ], more
