"""Mapillary Vistas 1.2, 65 classes of street scenes.

Layout: `mapillary/{training,validation}/images/*.jpg` and `.../v1.2/labels/*.png`, in version 1.1 `.../labels`; palette
PNGs, 65 is unlabelled and ignored.  The classes of version 2.0 are the dataset `mapillary_v2`.
"""

from functools import partial
from pathlib import Path

from mdp.io.datasets._dataset import Absent, Sample
from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets._layouts import contents, files_in, home_of, paired
from mdp.io.files.reading import exists, locate
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

# fmt: off
CLASSES = (
    "Bird", "Ground Animal", "Curb", "Fence", "Guard Rail", "Barrier", "Wall", "Bike Lane", "Crosswalk - Plain",
    "Curb Cut", "Parking", "Pedestrian Area", "Rail Track", "Road", "Service Lane", "Sidewalk", "Bridge", "Building",
    "Tunnel", "Person", "Bicyclist", "Motorcyclist", "Other Rider", "Lane Marking - Crosswalk",
    "Lane Marking - General", "Mountain", "Sand", "Sky", "Snow", "Terrain", "Vegetation", "Water", "Banner", "Bench",
    "Bike Rack", "Billboard", "Catch Basin", "CCTV Camera", "Fire Hydrant", "Junction Box", "Mailbox", "Manhole",
    "Phone Booth", "Pothole", "Street Light", "Pole", "Traffic Sign Frame", "Utility Pole", "Traffic Light",
    "Traffic Sign (Back)", "Traffic Sign (Front)", "Trash Can", "Bicycle", "Boat", "Bus", "Car", "Caravan",
    "Motorcycle", "On Rails", "Other Vehicle", "Trailer", "Truck", "Wheeled Slow", "Car Mount", "Ego Vehicle",
)
COLORS = (
    (165, 42, 42), (0, 192, 0), (196, 196, 196), (190, 153, 153), (180, 165, 180), (90, 120, 150), (102, 102, 156),
    (128, 64, 255), (140, 140, 200), (170, 170, 170), (250, 170, 160), (96, 96, 96), (230, 150, 140), (128, 64, 128),
    (110, 110, 110), (244, 35, 232), (150, 100, 100), (70, 70, 70), (150, 120, 90), (220, 20, 60), (255, 0, 0),
    (255, 0, 100), (255, 0, 200), (200, 128, 128), (255, 255, 255), (64, 170, 64), (230, 160, 50), (70, 130, 180),
    (190, 255, 255), (152, 251, 152), (107, 142, 35), (0, 170, 30), (255, 255, 128), (250, 0, 30), (100, 140, 180),
    (220, 220, 220), (220, 128, 128), (222, 40, 40), (100, 170, 30), (40, 40, 40), (33, 33, 33), (100, 128, 160),
    (142, 0, 0), (70, 100, 150), (210, 170, 100), (153, 153, 153), (128, 128, 128), (0, 0, 80), (250, 170, 30),
    (192, 192, 192), (220, 220, 0), (140, 140, 20), (119, 11, 32), (150, 0, 255), (0, 60, 100), (0, 0, 142), (0, 0, 90),
    (0, 0, 230), (0, 80, 100), (128, 64, 64), (0, 0, 110), (0, 0, 70), (0, 0, 192), (32, 32, 32), (120, 10, 10),
)
# fmt: on
LABELS = LabelSpace(name="mapillary", classes=CLASSES, ignore_index=65, colors=COLORS)
SPLITS = {"train": 18000, "val": 2000}
TRAIN = ("train",)
VAL = "val"
HOME = (
    "get Mapillary Vistas from the Mapillary site (a free account is needed) and put it, packed or unpacked, in the "
    "folder mapillary under the root; it holds training/ and validation/"
)
TERMS = (
    "Photos and labels are for research only, under the Mapillary Vistas Dataset Research Use Licence that comes with "
    "them; see the Mapillary site for commercial use."
)
_HOMES = ("mapillary", "Mapillary", "mapillary_vistas", "mapillary-vistas-dataset_public_v2.0",
           "mapillary-vistas-dataset_public_v1.2", "mapillary-vistas-dataset_public_v1.1", ".")  # fmt: skip
_FOLDERS = {"train": "training", "val": "validation"}


def samples_of(name: str, versions: tuple[str, ...], root: Path, split: str) -> list[Sample]:
    """The images of train or val with the label maps in the first of the folders.

    Raises DatasetError saying what is missing.
    """
    home = home_of(name, root, _HOMES, f"{_FOLDERS[split]}/images", HOME) / _FOLDERS[split]
    labels = next((locate(root, home / folder) for folder in versions if exists(root, home / folder)), None)
    if labels is None:
        raise Absent(f"{name}: no {' or '.join(str(home / folder) for folder in versions)} ({contents(home)}); {HOME}")
    photos = files_in(locate(root, home / "images"), ".jpg")
    return paired(name, [(photo, labels / f"{photo.stem}.png") for photo in photos], HOME)


samples = partial(samples_of, "mapillary", ("v1.2/labels", "labels"))
