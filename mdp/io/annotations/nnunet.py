"""nnU-Net's `dataset.json`, which lies beside `imagesTr` and `labelsTr`: the classes, and how its files are named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.annotations.json_file import parsed
from mdp.io.errors import DatasetError
from mdp.io.files.reading import has_controls, printable, shown

FILE = "dataset.json"
IGNORED = "ignore"  # the label that nnU-Net itself takes for no class
_VALUES = 2**16  # of label maps


class NnUnet(NamedTuple):
    """What a file says."""

    classes: dict[int, str]  # the name of each value of label maps
    ignored: int | None  # the value of pixels that nobody labelled
    ending: str  # of photos and label maps
    channels: int  # of which each may be in a file of its own


def is_nnunet(values: Any) -> bool:
    """Whether parsed JSON has the parts of nnU-Net's, of its first version or its second."""
    return (
        isinstance(values, Mapping)
        and isinstance(values.get("labels"), Mapping)
        and isinstance(values.get("channel_names", values.get("modality")), Mapping)
    )


def read(path: Path) -> NnUnet:
    """What a file says.  Raises DatasetError naming file and key, for regions of several values too."""
    values, name = parsed(str(path)), printable(path)
    if not is_nnunet(values):
        raise DatasetError(f"{name}: not a dataset.json of nnU-Net: expected `labels` and `channel_names`")
    second = "channel_names" in values  # name: value, where the first version has "value": name
    table: dict[int, str] = {}
    for key, entry in values["labels"].items():
        label, value = (key, entry) if second else (entry, _number(key))
        if second and isinstance(entry, list):
            raise DatasetError(
                f"{name}: labels.{shown(key)}: a region of several values; regions overlap, classes of mdp do not: "
                "name single values under `classes` in the dataset's YAML file"
            )
        if type(value) is not int or not 0 <= value < _VALUES or not isinstance(label, str) or not label.strip():
            raise DatasetError(f"{name}: labels: expected a name and a value of label maps, got {shown({key: entry})}")
        if has_controls(label):
            raise DatasetError(f"{name}: labels: control characters in {shown(label)}")
        if value in table:
            raise DatasetError(f"{name}: labels: {shown(label)} and {shown(table[value])} have the value {value}")
        table[value] = label
    ignored = next((value for value, label in table.items() if label == IGNORED), None)
    classes = {value: table[value] for value in sorted(table) if value != ignored}
    if not classes:
        raise DatasetError(f"{name}: labels: expected one or more")
    ending = values.get("file_ending", ".nii.gz")  # what it was before the second version
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DatasetError(f"{name}: file_ending: expected one such as .png, got {shown(ending)}")
    return NnUnet(classes, ignored, ending, len(values["channel_names" if second else "modality"]))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None
