"""COCO-Stuff 164k: 80 thing and 91 stuff classes on COCO 2017.

Layout: `images/{train2017,val2017}/*.jpg`, `annotations/{train2017,val2017}/*.png` (stuffthingmaps_trainval2017);
a pixel holds the number of the class in the official `labels.txt` minus 1, 255 is unlabelled.
"""

from pathlib import Path

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import files_in, home_of, paired
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.reading import found
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

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
    places = ("coco_stuff164k", "coco_stuff", "coco", ".")
    home = home_of("coco_stuff", root, places, f"annotations/{split}2017", HOME)
    images, labels = (found(root, home / kind / f"{split}2017") for kind in ("images", "annotations"))
    return paired("coco_stuff", [(image, labels / f"{image.stem}.png") for image in files_in(images, ".jpg")], HOME)
