"""nnU-Net's folders: `imagesTr`, `labelsTr`, perhaps `imagesTs` and `labelsTs`, and `dataset.json`."""

from pathlib import Path, PurePosixPath

from mdp.io.annotations import nnunet
from mdp.io.annotations.json_file import parsed
from mdp.io.datasets.draft.label_values import value_lines
from mdp.io.datasets.draft.text import Draft
from mdp.io.datasets.draft.tree import Tree, parent
from mdp.io.datasets.own.endings import LABELS, PHOTOS
from mdp.io.errors import DatasetError
from mdp.io.files.reading import printable

_FOLDERS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}
_FIRST = "_0000"  # the first channel, or all of a photo's where they are in one file


def drafts(tree: Tree) -> list[Draft]:
    """The split that is trained on, and the one for tests where it has label maps."""
    described = [file for file in tree.files if PurePosixPath(file).name == nnunet.FILE and _is_nnunet(tree, file)]
    if not described:
        return []
    if len(described) > 1:
        raise DatasetError(
            f"{printable(tree.folder)}: {len(described)} datasets of nnU-Net; give the folder of one, such as "
            f"{printable(parent(described[0]))}"
        )
    above = parent(described[0])
    said = nnunet.read(Path(tree.path(described[0])))
    if said.ending not in PHOTOS or said.ending not in LABELS:
        raise DatasetError(
            f"{printable(tree.path(described[0]))}: file_ending: photos and label maps in {said.ending} are not read; "
            f"write slices or tiles as one of {', '.join(ending for ending in PHOTOS if ending in LABELS)}"
        )
    notes: list[str] = []
    splits: dict[str, dict[str, str]] = {}
    maps: list[str] = []
    for split, folders in _FOLDERS.items():
        images, labels = (f"{above}/{folder}".removeprefix("/") for folder in folders)
        photos, theirs = (
            [file for file in tree.ending(said.ending) if parent(file) == folder] for folder in (images, labels)
        )
        if not photos:
            continue
        if not theirs:
            notes.append(f"There are no label maps for {images}, which is left out.")
            continue
        names = {"image": f"{{id}}{_FIRST}{said.ending}", "label": f"{{id}}{said.ending}"}
        splits[split] = {"images": images, "labels": labels, **names}
        maps += theirs
        if any(file.endswith(f"_0001{said.ending}") for file in photos):
            notes.append(
                f"Photos have {said.channels} files of a channel each, of which the first alone is read; one file of "
                "all channels, such as a TIFF, is read whole."
            )
    if "train" not in splits:
        return []
    lines = value_lines(tree, maps, said.classes, described[0], said.ignored)
    return [Draft("a dataset of nnU-Net", splits, lines.classes, lines.more, notes + lines.notes)]


def _is_nnunet(tree: Tree, file: str) -> bool:
    try:
        return nnunet.is_nnunet(parsed(tree.path(file)))
    except DatasetError:
        return False
