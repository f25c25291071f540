"""ADE20K scene parsing, 150 classes (ADEChallengeData2016).

Layout: `ADEChallengeData2016/{images,annotations}/{training,validation}/ADE_*.{jpg,png}`; grey PNGs, 0 is "other"
and ignored, 1..150 are the classes.
"""

from pathlib import Path

from mdp.io.datasets._dataset import Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import files_in, home_of, paired
from mdp.io.datasets._mistakes import LabelMaps, Mistake, Mistakes
from mdp.io.files.reading import locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "MISTAKES", "SCHEDULE", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

# fmt: off
CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane", "dirt track",
    "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van",
    "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel",
    "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name",
    "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce",
    "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor", "bulletin board",
    "shower", "radiator", "glass", "clock", "flag",
)
COLORS = (
    (120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80), (140, 140, 140),
    (204, 5, 255), (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7), (150, 5, 61), (120, 120, 70),
    (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4), (255, 51, 7), (204, 70, 3), (0, 102, 200),
    (61, 230, 250), (255, 6, 51), (11, 102, 255), (255, 7, 71), (255, 9, 224), (9, 7, 230), (220, 220, 220),
    (255, 9, 92), (112, 9, 255), (8, 255, 214), (7, 255, 224), (255, 184, 6), (10, 255, 71), (255, 41, 10),
    (7, 255, 255), (224, 255, 8), (102, 8, 255), (255, 61, 6), (255, 194, 7), (255, 122, 8), (0, 255, 20),
    (255, 8, 41), (255, 5, 153), (6, 51, 255), (235, 12, 255), (160, 150, 20), (0, 163, 255), (140, 140, 140),
    (250, 10, 15), (20, 255, 0), (31, 255, 0), (255, 31, 0), (255, 224, 0), (153, 255, 0), (0, 0, 255), (255, 71, 0),
    (0, 235, 255), (0, 173, 255), (31, 0, 255), (11, 200, 200), (255, 82, 0), (0, 255, 245), (0, 61, 255),
    (0, 255, 112), (0, 255, 133), (255, 0, 0), (255, 163, 0), (255, 102, 0), (194, 255, 0), (0, 143, 255),
    (51, 255, 0), (0, 82, 255), (0, 255, 41), (0, 255, 173), (10, 0, 255), (173, 255, 0), (0, 255, 153), (255, 92, 0),
    (255, 0, 255), (255, 0, 245), (255, 0, 102), (255, 173, 0), (255, 0, 20), (255, 184, 184), (0, 31, 255),
    (0, 255, 61), (0, 71, 255), (255, 0, 204), (0, 255, 194), (0, 255, 82), (0, 10, 255), (0, 112, 255), (51, 0, 255),
    (0, 194, 255), (0, 122, 255), (0, 255, 163), (255, 153, 0), (0, 255, 10), (255, 112, 0), (143, 255, 0),
    (82, 0, 255), (163, 255, 0), (255, 235, 0), (8, 184, 170), (133, 0, 255), (0, 255, 92), (184, 0, 255),
    (255, 0, 31), (0, 184, 255), (0, 214, 255), (255, 0, 112), (92, 255, 0), (0, 224, 255), (112, 224, 255),
    (70, 184, 160), (163, 0, 255), (153, 0, 255), (71, 255, 0), (255, 0, 163), (255, 204, 0), (255, 0, 143),
    (0, 255, 235), (133, 255, 0), (255, 0, 235), (245, 0, 255), (255, 0, 122), (255, 245, 0), (10, 190, 212),
    (214, 255, 0), (0, 204, 255), (20, 0, 255), (255, 255, 0), (0, 153, 255), (0, 41, 255), (0, 255, 204),
    (41, 0, 255), (41, 255, 0), (173, 0, 255), (0, 245, 255), (71, 0, 255), (122, 0, 255), (0, 255, 184),
    (0, 92, 255), (184, 255, 0), (0, 133, 255), (255, 214, 0), (25, 194, 194), (102, 255, 0), (92, 0, 255),
)
# fmt: on
LABELS = LabelSpace(
    name="ade20k",
    classes=CLASSES,
    ignore_index=0,
    lookup={label + 1: label for label in range(len(CLASSES))},
    colors=COLORS,
)
SPLITS = {"train": 20210, "val": 2000}
TRAIN = ("train",)
VAL = "val"
# the first of MMSegmentation's schedules for DeepLab-v3 (0.11 to 0.30); batches are 4 GPUs x 4 images
SCHEDULE = {"finetune": {"steps": 80000, "scale": [2048, 512], "validate_steps": 8000}, "eval": {"scale": [2048, 512]}}
HOME = (
    "get ADEChallengeData2016.zip from the MIT scene parsing challenge page and put it, packed or unpacked, under "
    "the root"
)
TERMS = (
    "The photos may be used for non-commercial research and education only; the annotations are licensed BSD-3-Clause "
    "by MIT CSAIL."
)
_FOLDERS = {"train": "training", "val": "validation"}


def samples(root: Path, split: str) -> list[Sample]:
    """The images of train or val.  Raises DatasetError saying what is missing."""
    home = home_of("ade20k", root, ("ADEChallengeData2016", "ade20k", "ade", "."), "annotations", HOME)
    images, labels = (locate(root, home / kind / _FOLDERS[split]) for kind in ("images", "annotations"))
    return paired("ade20k", [(image, labels / f"{image.stem}.png") for image in files_in(images, ".jpg")], HOME)


def _other_values(maps: LabelMaps) -> Mistake | None:
    """Labels less 1, or of the full ADE20K."""
    if not maps.official and not (maps.classes == 150 and maps.top > 150):
        return None
    if maps.top <= 149 and maps.unknown == {255}:
        text = "these look like ADE20K labels less 1 (0..149, 255); take the original files, 0..150"
        return Mistake("ade20k_shifted", text)
    text = "these look like the full ADE20K; expected is its SceneParsing challenge edition, ADEChallengeData2016"
    return Mistake("ade20k_full", f"{text}, with values 0..150")


MISTAKES = Mistakes(
    edition=(
        "ADE20K_20*",
        "this is the full ADE20K; expected is its SceneParsing challenge edition, ADEChallengeData2016",
    ),
    colored="colour maps are those of the full ADE20K (*_seg.png); expected is the SceneParsing challenge edition, "
    "ADEChallengeData2016, with grey PNGs of 0..150",
    unknown=_other_values,
)
