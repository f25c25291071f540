"""Generated scenes with exact labels: a small world in which taxonomies conflict and looks differ.

A scene is a wall (brick or panel) above a floor (tile or plank) with a few objects.  Colours are drawn without regard
to the class, so shape and texture are what there is to learn.  Each dataset renders the same world in its own style
and names it by its own taxonomy; the true relation between taxonomies is known (`WORLD` and each dataset's `MEANING`).
Every picture is a pure function of (dataset, split, index); `_rendering.py` draws it, for which it takes NumPy.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mdp.io.datasets._dataset import Sample

WORLD = (
    "wall-brick", "wall-panel", "floor-tile", "floor-plank",
    "disc", "ring", "square", "triangle", "cross", "star",
)  # fmt: skip
OBJECTS = WORLD[4:]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a dataset looks."""

    texture: float = 1.0  # scale of bricks, panels, tiles and planks
    contrast: float = 0.35  # of the textures
    brightness: tuple[float, float] = (0.35, 0.9)  # range of the surfaces' base colour
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.02  # standard deviation of the pixel noise
    shade: float = 0.0  # strength of the light falling off from one corner


def generated(dataset: str, split: str, count: int) -> list[Sample]:
    """Samples by name; nothing is drawn yet."""
    names = [f"{dataset}/{split}/{index:05d}" for index in range(count)]
    return [Sample(name, f"{name} (labels)", dataset) for name in names]


def true_relation(first: Mapping[str, str], name: str, second: Mapping[str, str], other: str) -> str:
    """The relation of a class of a taxonomy to a class of another, by what they mean in the world.

    It is the same, a part of it, the whole of it, overlaps with it, or is apart from it.

    >>> meaning = {"disc": "round", "ring": "round", "star": "star"}
    >>> true_relation(meaning, "round", {"disc": "disc", "ring": "ring", "star": "ring"}, "disc")
    'whole'
    """
    here = {thing for thing, label in first.items() if label == name}
    there = {thing for thing, label in second.items() if label == other}
    if here == there:
        return "same"
    if not here & there:
        return "apart"
    return "part" if here < there else "whole" if here > there else "overlap"
