"""Mapillary Vistas 2.0, the 116 classes of street scenes that its makers evaluate.

Layout: `mapillary/{training,validation}/images/*.jpg` and `.../v2.0/labels/*.png`; palette PNGs of 0..123.  Ignored are
the eight labels that the makers do not evaluate: unlabelled, groups, and what is ambiguous.
"""

from functools import partial

from mdp.io.datasets._dataset import read_pair as read
from mdp.io.datasets.mapillary import HOME, SPLITS, TERMS, TRAIN, VAL, samples_of
from mdp.io.files.colormap import voc_colormap
from mdp.label_space import IGNORE, LabelSpace

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

# fmt: off
NAMES = (
    "Bird", "Ground Animal", "Ambiguous Barrier", "Concrete Block", "Curb", "Fence", "Guard Rail", "Barrier",
    "Road Median", "Road Side", "Lane Separator", "Temporary Barrier", "Wall", "Bike Lane", "Crosswalk - Plain",
    "Curb Cut", "Driveway", "Parking", "Parking Aisle", "Pedestrian Area", "Rail Track", "Road", "Road Shoulder",
    "Service Lane", "Sidewalk", "Traffic Island", "Bridge", "Building", "Garage", "Tunnel", "Person", "Person Group",
    "Bicyclist", "Motorcyclist", "Other Rider", "Lane Marking - Dashed Line", "Lane Marking - Straight Line",
    "Lane Marking - Zigzag Line", "Lane Marking - Ambiguous", "Lane Marking - Arrow (Left)",
    "Lane Marking - Arrow (Other)", "Lane Marking - Arrow (Right)", "Lane Marking - Arrow (Split Left or Straight)",
    "Lane Marking - Arrow (Split Right or Straight)", "Lane Marking - Arrow (Straight)", "Lane Marking - Crosswalk",
    "Lane Marking - Give Way (Row)", "Lane Marking - Give Way (Single)", "Lane Marking - Hatched (Chevron)",
    "Lane Marking - Hatched (Diagonal)", "Lane Marking - Other", "Lane Marking - Stop Line",
    "Lane Marking - Symbol (Bicycle)", "Lane Marking - Symbol (Other)", "Lane Marking - Text",
    "Lane Marking (only) - Dashed Line", "Lane Marking (only) - Crosswalk", "Lane Marking (only) - Other",
    "Lane Marking (only) - Test", "Mountain", "Sand", "Sky", "Snow", "Terrain", "Vegetation", "Water", "Banner",
    "Bench", "Bike Rack", "Catch Basin", "CCTV Camera", "Fire Hydrant", "Junction Box", "Mailbox", "Manhole",
    "Parking Meter", "Phone Booth", "Pothole", "Signage - Advertisement", "Signage - Ambiguous", "Signage - Back",
    "Signage - Information", "Signage - Other", "Signage - Store", "Street Light", "Pole", "Pole Group",
    "Traffic Sign Frame", "Utility Pole", "Traffic Cone", "Traffic Light - General (Single)",
    "Traffic Light - Pedestrians", "Traffic Light - General (Upright)", "Traffic Light - General (Horizontal)",
    "Traffic Light - Cyclists", "Traffic Light - Other", "Traffic Sign - Ambiguous", "Traffic Sign (Back)",
    "Traffic Sign - Direction (Back)", "Traffic Sign - Direction (Front)", "Traffic Sign (Front)",
    "Traffic Sign - Parking", "Traffic Sign - Temporary (Back)", "Traffic Sign - Temporary (Front)", "Trash Can",
    "Bicycle", "Boat", "Bus", "Car", "Caravan", "Motorcycle", "On Rails", "Other Vehicle", "Trailer", "Truck",
    "Vehicle Group", "Wheeled Slow", "Water Valve", "Car Mount", "Dynamic", "Ego Vehicle", "Ground", "Static",
    "Unlabeled",
)
IGNORED = (
    "Ambiguous Barrier", "Person Group", "Lane Marking - Ambiguous", "Signage - Ambiguous", "Pole Group",
    "Traffic Sign - Ambiguous", "Vehicle Group", "Unlabeled",
)
# fmt: on
CLASSES = tuple(name for name in NAMES if name not in IGNORED)
LABELS = LabelSpace(
    name="mapillary_v2",
    classes=CLASSES,
    ignore_index=NAMES.index("Unlabeled"),
    lookup={raw: IGNORE if name in IGNORED else CLASSES.index(name) for raw, name in enumerate(NAMES)},
    colors=voc_colormap(len(CLASSES)),  # many of the makers' colours repeat
)
samples = partial(samples_of, "mapillary_v2", ("v2.0/labels",))
