"""COCO-Stuff 164k: 80 thing and 91 stuff classes on COCO 2017.

Layout: `images/{train2017,val2017}/*.jpg`, `annotations/{train2017,val2017}/*.png` (stuffthingmaps_trainval2017);
a pixel holds the number of the class in the official `labels.txt` minus 1, 255 is unlabelled.
"""

from pathlib import Path

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import files_in, home_of, paired
from mdp.io.datasets._mistakes import LabelMaps, Mistake, Mistakes
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "MISTAKES", "SCHEDULE", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

# fmt: off
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "banner",
    "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet",
    "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain", "desk-stuff",
    "dirt", "door-stuff", "fence", "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower",
    "fog", "food-other", "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves",
    "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper", "pavement",
    "pillow", "plant-other", "plastic", "platform", "playingfield", "railing", "railroad", "river", "road", "rock",
    "roof", "rug", "salad", "sand", "sea", "shelf", "sky-other", "skyscraper", "snow", "solid-other", "stairs",
    "stone", "straw", "structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable",
    "wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile", "wall-wood", "water-other",
    "waterdrops", "window-blind", "window-other", "wood",
)
# values of the 11 thing classes that were never annotated (street sign, hat, shoe, eye glasses, plate, mirror,
# window, desk, door, blender, hair brush): a file that holds one is of another edition, so they stay unknown
NEVER = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
# fmt: on
LABELS = LabelSpace(
    name="coco_stuff",
    classes=CLASSES,
    ignore_index=255,
    lookup={raw: label for label, raw in enumerate(raw for raw in range(182) if raw not in NEVER)},
    colors=voc_colormap(len(CLASSES)),  # nine colours of the palette in use elsewhere repeat
)
SPLITS = {"train": 118287, "val": 5000}
TRAIN = ("train",)
VAL = "val"
# MMSegmentation's schedule for DeepLab-v3 (0.11 to 0.30), whose steps are the authors'; batches are 4 GPUs x 4 images
SCHEDULE = {"finetune": {"steps": 80000, "scale": [2048, 512], "validate_steps": 8000}, "eval": {"scale": [2048, 512]}}
HOME = (
    "get train2017.zip and val2017.zip from the COCO site, stuffthingmaps_trainval2017.zip from the COCO-Stuff page, "
    "and put the first two in images/, the third in annotations/ under coco_stuff164k/, packed or unpacked"
)
TERMS = (
    "The annotations are licensed CC BY 4.0 by the makers of COCO-Stuff; the photos come from Flickr, whose terms of "
    "use hold for them."
)


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train or val.  Raises DatasetError saying what is missing."""
    folders = ("coco_stuff164k", "coco_stuff", "coco", ".")
    home = home_of("coco_stuff", root, folders, f"annotations/{split}2017", HOME)
    images, labels = (locate(root, home / kind / f"{split}2017") for kind in ("images", "annotations"))
    return paired("coco_stuff", [(image, labels / f"{image.stem}.png") for image in files_in(images, ".jpg")], HOME)


def _other_values(maps: LabelMaps) -> Mistake | None:
    """COCO-Stuff's label maps come as 0..181 (164k), 0..182 (10k), 92..183 (stuff only) and 0..170 (contiguous)."""
    top = maps.top
    if not maps.official:
        if maps.classes != len(CLASSES) or not len(CLASSES) <= top <= 181:
            return None
        text = "these look like COCO-Stuff's own pixelmaps (0..181, 255) where contiguous ids 0..170 are expected"
        return Mistake("coco_stuff_pixelmaps", f"{text}; the built-in dataset `coco_stuff` reads them")
    wanted = "expected are the stuffthingmaps of COCO-Stuff 164k, values 0..181 and 255"
    if top == 183 or (top == 182 and min(maps.values - {0}) >= 92):
        text = "these look like the stuff-only pixelmaps (92..183), without things"
        return Mistake("coco_stuff_only", f"{text}; {wanted}")
    # in label ids the gaps are one higher
    gaps = maps.values.isdisjoint(value + 1 for value in NEVER) and maps.unknown <= set(NEVER)
    if top == 182 or (170 < top < 182 and gaps):
        text = "these look like COCO-Stuff 10k or label ids (0 unlabelled, 1..182)"
        return Mistake("coco_stuff_10k", f"{text}; {wanted}")
    if top <= 170:
        return Mistake("coco_stuff_contiguous", f"these look like converted, contiguous ids (0..170); {wanted}")
    return Mistake("coco_stuff_edition", wanted)


MISTAKES = Mistakes(
    edition=(
        "*coco*10k*",
        "this looks like COCO-Stuff 10k; expected is COCO-Stuff 164k (`coco_stuff10k` reads the other)",
    ),
    colored="colour maps are COCO's panoptic ones; expected are the stuffthingmaps of COCO-Stuff, grey PNGs of "
    "0..181 and 255",
    unknown=_other_values,
)
