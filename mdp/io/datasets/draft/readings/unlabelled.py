"""Photos without labels."""

from mdp.io.datasets.draft.text import Draft
from mdp.io.datasets.draft.tree import Tree, common_folder
from mdp.io.datasets.own.endings import PHOTOS


def drafts(tree: Tree) -> list[Draft]:
    """All photos below the folder that holds them."""
    photos = tree.ending(*PHOTOS)
    if not photos:
        return []
    count = f"{len(photos):,} photo{'s' * (len(photos) != 1)}"
    note = f"{count} and no label maps that go by their names: they are for methods that need no labels, such as moco."
    return [Draft("photos without labels", {"train": {"images": common_folder(photos)}}, notes=[note])]
