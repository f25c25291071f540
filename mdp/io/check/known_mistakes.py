"""Known ways for label maps to be another thing than their label space says, each with what to do about it.

All is guessed from which values occur and what the files are called; nothing here reads a file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdp.core.labels import IGNORE
from mdp.io.datasets._dataset import Dataset, Sample
from mdp.io.datasets.coco_stuff import NEVER

_CITYSCAPES = (
    "these look like Cityscapes labelIds (0..33) where labelTrainIds (0..18, 255) are expected; the built-in dataset "
    "`cityscapes` reads *_labelIds.png as they are, or make *_labelTrainIds.png with cityscapesScripts"
)
_EDITIONS = {  # a folder that shows another edition, by dataset
    "ade20k": (
        "ADE20K_20*",
        "this is the full ADE20K; expected is its SceneParsing challenge edition, ADEChallengeData2016",
    ),
    "coco_stuff": (
        "*coco*10k*",
        "this looks like COCO-Stuff 10k; expected is COCO-Stuff 164k (`coco_stuff10k` reads the other)",
    ),
    "voc": ("VOC2007", "this is VOC 2007; expected is VOC 2012"),
}
_COLORED = {  # what colour label maps of a dataset are
    "ade20k": "colour maps are those of the full ADE20K (*_seg.png); expected is the SceneParsing challenge edition, "
    "ADEChallengeData2016, with grey PNGs of 0..150",
    "coco_stuff": "colour maps are COCO's panoptic ones; expected are the stuffthingmaps of COCO-Stuff, grey PNGs of "
    "0..181 and 255",
    "cityscapes": "colour maps are for looking at (*_color.png); take *_labelIds.png",
    "bdd100k": "colour maps are for looking at (labels/sem_seg/colormaps); take labels/sem_seg/masks",
    "voc": "VOC's label maps are palette PNGs; these were converted to colours: take the original files",
}


class Trap(NamedTuple):
    """What the label maps seem to be, and the YAML lines that would read them, where a YAML file describes them."""

    kind: str
    advice: str
    yaml: tuple[str, ...] = ()


def is_own(dataset: Dataset) -> bool:
    """Whether a YAML file describes it, which its owner can change."""
    return dataset.source.endswith((".yaml", ".yml"))


def trap_of_unknown(dataset: Dataset, pixels: NDArray[np.int64], samples: Sequence[Sample]) -> Trap:
    """What to do about values outside the label space, given the pixels of every raw value (65536)."""
    found, table = np.flatnonzero(pixels), dataset.labels.table
    unknown = {int(value) for value in found if table[value] < IGNORE}
    published = _published(dataset, set(found.tolist()), unknown, samples)
    if published:
        return published
    if set(found.tolist()) <= {0, 255}:
        return binary(dataset)
    return _shifted(dataset, set(found.tolist()), unknown) or _unnamed(dataset, pixels, sorted(unknown))


def _published(dataset: Dataset, found: set[int], unknown: set[int], samples: Sequence[Sample]) -> Trap | None:
    """Another edition of a public dataset."""
    count, top = len(dataset.labels.classes), max(found - {255}, default=0)
    if dataset.name == "bdd100k":
        return Trap("bdd100k_ids", "expected are trainIds, 0..18 and 255, as labels/sem_seg/masks has them")
    if dataset.name == "nyudv2" and top <= 39 and unknown == {255}:
        return Trap(
            "nyudv2_shifted", "these look like the 40 classes less 1 (0..39, 255); expected is 0 for void, 1..40"
        )
    by_label_id = any(sample.labels.endswith("_labelIds.png") for sample in samples)
    if dataset.name == "cityscapes" or (count == 19 and (by_label_id or (top <= 33 and min(unknown) >= 19))):
        return Trap("cityscapes_label_ids", _CITYSCAPES)
    if dataset.name == "coco_stuff" or count == 171:
        return _coco_stuff(dataset.name == "coco_stuff", found, unknown, top)
    if dataset.name == "ade20k" or (count == 150 and top > 150):
        if top <= 149 and unknown == {255}:
            text = "these look like ADE20K labels less 1 (0..149, 255); take the original files, 0..150"
            return Trap("ade20k_shifted", text)
        text = "these look like the full ADE20K; expected is its SceneParsing challenge edition, ADEChallengeData2016"
        return Trap("ade20k_full", f"{text}, with values 0..150")
    return None


def _coco_stuff(official: bool, found: set[int], unknown: set[int], top: int) -> Trap | None:
    """COCO-Stuff's label maps come as 0..181 (164k), 0..182 (10k), 92..183 (stuff only) and 0..170 (contiguous)."""
    if not official:
        text = "these look like COCO-Stuff's own pixelmaps (0..181, 255) where contiguous ids 0..170 are expected"
        seen = 171 <= top <= 181
        return Trap("coco_stuff_pixelmaps", f"{text}; the built-in dataset `coco_stuff` reads them") if seen else None
    wanted = "expected are the stuffthingmaps of COCO-Stuff 164k, values 0..181 and 255"
    if top == 183 or (top == 182 and min(found - {0}) >= 92):
        return Trap("coco_stuff_only", f"these look like the stuff-only pixelmaps (92..183), without things; {wanted}")
    # in label ids the gaps are one higher
    if top == 182 or (170 < top < 182 and not found & {value + 1 for value in NEVER} and unknown <= set(NEVER)):
        return Trap("coco_stuff_10k", f"these look like COCO-Stuff 10k or label ids (0 unlabelled, 1..182); {wanted}")
    if top <= 170:
        return Trap("coco_stuff_contiguous", f"these look like converted, contiguous ids (0..170); {wanted}")
    return Trap("coco_stuff_edition", wanted)


def binary(dataset: Dataset) -> Trap:
    """0 and 255 are all there is."""
    names = (*dataset.labels.classes, "background", "object")[:2]
    lines = ("ignore_index: null", "classes:", f"  0: {names[0]}", f"  1: {{name: {names[1]}, values: [255]}}")
    text = "only 0 and 255 occur: a binary mask, in which 255 is the object and not an ignored rim"
    return Trap("binary_mask", f"{text}; name 255 as a class", lines if is_own(dataset) else ())


def _shifted(dataset: Dataset, found: set[int], unknown: set[int]) -> Trap | None:
    """Values one above, or one below, those that are named."""
    space = dataset.labels
    named = {int(value): int(space.table[value]) for value in np.flatnonzero(space.table > IGNORE)}
    low, high = min(named), max(named)
    if len(named) != high - low + 1 or len(named) < 2 or len(named) != len(space.classes):
        return None
    if unknown == {high + 1}:
        shift, rest = 1, "" if low not in found else f", with {low} for unlabelled pixels"
    elif unknown == {low - 1} and high not in found:
        shift, rest = -1, ""
    else:
        return None
    text = (
        f"off by one: the values are {low + shift}..{high + shift}{rest}, where {low}..{high} are named; "
        "number the classes as in the files"
    )
    lines = [f"  {value + shift}: {_quoted(space.classes[label])}" for value, label in sorted(named.items())]
    ignored = [f"ignore_index: {low}"] if rest else []
    return Trap("off_by_one", text, (*ignored, "classes:", *lines) if is_own(dataset) else ())


def _unnamed(dataset: Dataset, pixels: NDArray[np.int64], unknown: list[int]) -> Trap:
    if not is_own(dataset):
        text = "the official files have no such values: is it another edition, or were the files converted?"
        return Trap("unknown_values", f"{text} A YAML file can describe an edition of your own")
    if len(unknown) > 40:
        text = "so many values are no classes: are these instance ids, depths or photos?"
        return Trap("unknown_values", f"{text} Give label maps with one value a class")
    shares = {value: f"{pixels[value] / pixels.sum():.2%} of pixels" for value in unknown}
    ignore = sorted({value for value, label in (dataset.labels.lookup or {}).items() if label == IGNORE} | set(unknown))
    lines = (
        "# either, where they are classes, under `classes:`",
        *(f"  {value}: NAME  # {share}" for value, share in shares.items()),
        "# or, where they never are",
        f"ignore: {ignore}",
    )
    return Trap("unknown_values", "name them under classes, or list them under ignore", lines)


def _quoted(name: str) -> str:
    return f'"{name}"'


# What is wrong though every value is known


def trainids_as_labelids(dataset: Dataset, pixels: NDArray[np.int64], samples: Sequence[Sample]) -> str:
    """Advice where trainIds lie in files named labelIds: read so, all of them are six classes or ignored."""
    if dataset.name != "cityscapes" or not samples or not samples[0].labels.endswith("_labelIds.png"):
        return ""
    # trainIds 7, 8, 11, 12, 13 and 17 are taken for the first six classes, the others for ids that are ignored
    if pixels[6:19].any() or not pixels[:6].any():
        return ""
    return (
        "only the first six classes occur: the files are named labelIds, but seem to hold trainIds; name them "
        "*_labelTrainIds.png, or take the original files"
    )


def only_voc(dataset: Dataset, samples: Sequence[Sample], training: bool) -> str:
    """Advice where VOC is trained on without SBD's labels."""
    if dataset.name != "voc" or not training or any(_folder(sample) != "SegmentationClass" for sample in samples):
        return ""
    return (
        f"VOC's own labels only, {len(samples):,} images (1,464 officially); the usual training set is trainaug, "
        f"10,582 images with SBD's labels: {dataset.home}"
    )


def _folder(sample: Sample) -> str:
    return Path(sample.labels).parent.name


def colored(dataset: Dataset) -> str:
    """What label maps in colour are, for a public dataset that has none."""
    return _COLORED.get(dataset.name, "a colour label map needs a table: name the colours in the dataset's YAML file")


def other_edition(dataset: Dataset, root: Path) -> str:
    """What lies under the root in place of a dataset that was not found."""
    pattern, text = _EDITIONS.get(dataset.name, ("", ""))
    found = [path for glob in (pattern, f"*/{pattern}") if pattern for path in sorted(root.glob(glob))]
    return f"{found[0]}: {text}" if found else ""
