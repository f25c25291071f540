"""Label Studio's masks, one a class."""

from pathlib import PurePosixPath

from mdp.io.annotations import label_studio
from mdp.io.datasets.draft.readings.class_lines import drawn_classes
from mdp.io.datasets.draft.text import Draft
from mdp.io.datasets.draft.tree import Tree, common_folder, parent
from mdp.io.datasets.own.endings import PHOTOS


def drafts(tree: Tree) -> list[Draft]:
    """One split, of the first folder with such masks."""
    masks = [file for file in tree.ending(".png") if label_studio.mask_name(PurePosixPath(file).name)]
    if not masks:
        return []
    folder = parent(masks[0])
    photos = [file for file in tree.ending(*PHOTOS) if file not in set(masks)]
    notes = [] if photos else ["There are no photos here: say under `images` where they are."]
    classes, more = drawn_classes(list(label_studio.class_names(tree.folder / folder)), overlap="ignore")
    more[-1] = "overlap: ignore  # masks have no order: pixels of two classes are ignored; or smaller"
    images = common_folder(photos) if photos else "photos"
    return [
        Draft(
            "masks of Label Studio", {"train": {"images": images, "annotations": folder or "."}}, classes, more, notes
        )
    ]
