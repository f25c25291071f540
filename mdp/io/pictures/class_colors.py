"""The colours of classes in a run's pictures: a class has one, whichever picture it is in."""

from mdp.core.labels import LabelUnion
from mdp.io.files.colormap import voc_colormap
from mdp.label_space import RGB, LabelSpace


def colors_of_space(space: LabelSpace) -> tuple[RGB, ...]:
    """A dataset's own colours, VOC's where it has none."""
    return space.colors or voc_colormap(len(space.classes))


def colors_of_union(union: LabelUnion) -> tuple[RGB, ...]:
    """A colour for each class of the union: its dataset's own where that is the only one.

    Those of several datasets are VOC's from 1 on, so that no two of them share one.
    """
    spaces = union.spaces
    return colors_of_space(spaces[0]) if len(spaces) == 1 else voc_colormap(union.size + 1)[1:]
