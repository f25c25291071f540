"""Miniature datasets in the official layouts: a few small pictures per split, with several classes in each."""

import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from struct import pack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.io.files.colormap import voc_colormap

HEIGHT, WIDTH = 64, 96


def photo(path: Path, seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """A smooth picture, in the format of its suffix."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


def labels_array(values: Sequence[int], seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """A patchwork in which each of `values` occurs."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(np.resize(np.array(values, dtype=np.uint8), max(24, len(values))))
    cells = np.resize(cells, (4, -(-len(cells) // 4)))
    rows = np.arange(size[0]) * cells.shape[0] // size[0]
    columns = np.arange(size[1]) * cells.shape[1] // size[1]
    return cells[rows][:, columns]


def grey(path: Path, values: NDArray[np.integer]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def palette(path: Path, values: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    image.putpalette([channel for color in voc_colormap(256) for channel in color])
    image.save(path)
    return path


def lines(path: Path, entries: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{entry}\n" for entry in entries))
    return path


def voc_tree(root: Path) -> Path:
    """3 train, 2 val.  Returns the folder VOC2012."""
    voc = root / "VOCdevkit" / "VOC2012"
    splits = {"train": ["2007_000001", "2007_000002", "2008_000003"], "val": ["2007_000004", "2008_000005"]}
    for seed, name in enumerate(name for names in splits.values() for name in names):
        photo(voc / "JPEGImages" / f"{name}.jpg", seed)
        palette(voc / "SegmentationClass" / f"{name}.png", labels_array([0, 1, 15, 20, 255], seed))
    for split, names in splits.items():
        lines(voc / "ImageSets" / "Segmentation" / f"{split}.txt", names)
    return voc


def aug_tree(root: Path, with_own: bool = True) -> Path:
    """`voc_tree` with SegmentationClassAug: two more training images, and the list with or without VOC's own ids."""
    voc = voc_tree(root)
    extra = ["2010_000001", "2010_000002"]
    own = ["2007_000001", "2007_000002", "2008_000003"]
    for seed, name in enumerate(extra + own):
        photo(voc / "JPEGImages" / f"{name}.jpg", seed)
        palette(voc / "SegmentationClassAug" / f"{name}.png", labels_array([0, 2, 12], seed))
    name = "trainaug.txt" if with_own else "aug.txt"
    lines(voc / "ImageSets" / "Segmentation" / name, [*(own if with_own else []), *extra])
    return voc


def sbd_tree(root: Path) -> Path:
    """`voc_tree` with SBD: 3 images of its own, one of VOC's train and one of VOC's val.  Returns SBD's folder."""
    voc = voc_tree(root)
    sbd = root / "benchmark_RELEASE" / "dataset"
    train, val = ["2009_000001", "2007_000001", "2007_000004"], ["2009_000002", "2009_000003"]
    for seed, name in enumerate(train + val):
        photo(voc / "JPEGImages" / f"{name}.jpg", seed)
        sbd_mat(sbd / "cls" / f"{name}.mat", labels_array([0, 3, 7], seed))
    lines(sbd / "train.txt", train)
    lines(sbd / "val.txt", val)
    return sbd


def ade20k_tree(root: Path) -> Path:
    ade = root / "ADEChallengeData2016"
    for folder, short in (("training", "train"), ("validation", "val")):
        for seed in range(2):
            name = f"ADE_{short}_{seed + 1:08d}"
            photo(ade / "images" / folder / f"{name}.jpg", seed)
            grey(ade / "annotations" / folder / f"{name}.png", labels_array([0, 1, 3, 150], seed))
    return ade


def cityscapes_tree(root: Path, label_ids: bool = True) -> Path:
    home = root / "cityscapes"
    kind, values = ("labelIds", [0, 3, 7, 11, 26, 33]) if label_ids else ("labelTrainIds", [255, 0, 2, 13, 18])
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "lindau")):
        stem = f"{city}_000000_000019"
        photo(home / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", 0)
        grey(home / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", labels_array(values, 0))
    return home


def coco_stuff_tree(root: Path) -> Path:
    home = root / "coco_stuff164k"
    for split in ("train2017", "val2017"):
        for seed in range(2):
            photo(home / "images" / split / f"{seed + 9:012d}.jpg", seed)
            grey(home / "annotations" / split / f"{seed + 9:012d}.png", labels_array([0, 12, 92, 181, 255], seed))
    return home


def camvid_tree(root: Path, suffix: str = ".png") -> Path:
    home = root / "CamVid"
    for split in ("train", "val", "test"):
        for seed in range(2):
            photo(home / split / f"0001TP_{seed:06d}{suffix}", seed)
            grey(home / f"{split}annot" / f"0001TP_{seed:06d}.png", labels_array([0, 3, 10, 11], seed))
    return home


def own_tree(root: Path) -> Path:
    """A dataset of one's own with a YAML file.  Returns the YAML file."""
    for split, count in (("train", 3), ("val", 2)):
        for seed in range(count):
            photo(root / "images" / split / f"shot_{seed}.JPG", seed)
            name = f"shot_{seed}.png" if split == "train" else f"shot_{seed}_gt.png"
            grey(root / "labels" / split / name, labels_array([0, 1, 2, 5, 255], seed))
    return own_yaml(
        root,
        """
        name: site_a
        splits:
          train: {images: images/train, labels: labels/train}
          val: {images: images/val, labels: labels/val, label: "{stem}_gt.png"}
        ignore_index: 255
        ignore: [5]
        classes: {0: background, 1: {name: vehicle, values: [1, 2]}}
        """,
    )


def own_yaml(root: Path, text: str, name: str = "site_a.yaml") -> Path:
    """Writes a dataset description, its indentation removed."""
    indent = min((len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip()), default=0)
    root.mkdir(parents=True, exist_ok=True)
    path = root / name
    path.write_text("\n".join(line[indent:] for line in text.splitlines()))
    return path


def pascal_context_tree(root: Path, folder: str = "SegmentationClassContext") -> Path:
    """2 train, 1 val in one of the three editions; every map has sky, grass, person and background."""
    voc = root / "VOCdevkit" / "VOC2010"
    values = {"SegmentationClassContext": [0, 47, 29, 37], "59_context_labels": [0, 50, 36, 15]}
    ids = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000007"]}
    for seed, name in enumerate(name for names in ids.values() for name in names):
        photo(voc / "JPEGImages" / f"{name}.jpg", seed)
        if folder == "trainval":
            numbers = labels_array([0, 1, 2, 3], seed)
            label_mat(voc / folder / f"{name}.mat", "LabelMap", np.array([431, 360, 187, 284], np.uint16)[numbers])
        else:
            grey(voc / folder / f"{name}.png", labels_array(values[folder], seed))
    for split, names in ids.items():
        lines(voc / "ImageSets" / ("Main" if folder == "trainval" else "SegmentationContext") / f"{split}.txt", names)
    return voc


def nyudv2_tree(root: Path) -> Path:
    home = root / "nyudv2"
    for split, names in (("train", ["3", "4"]), ("test", ["1", "2"])):
        for name in names:
            photo(home / "RGB" / f"{name}.jpg", int(name))
            grey(home / "Label" / f"{name}.png", labels_array([0, 1, 5, 40], int(name)))
        lines(home / f"{split}.txt", [f"RGB/{name}.jpg Label/{name}.png" for name in names])
    return home


def bdd100k_tree(root: Path) -> Path:
    home = root / "bdd100k"
    for split in ("train", "val"):
        for seed in range(2):
            photo(home / "images" / "10k" / split / f"{seed:08x}-0000{seed:04x}.jpg", seed)
            values = labels_array([255, 0, 2, 13, 18], seed)
            grey(home / "labels" / "sem_seg" / "masks" / split / f"{seed:08x}-0000{seed:04x}.png", values)
    return home


def mapillary_tree(root: Path, labels: str = "v1.2/labels", values: Sequence[int] = (0, 13, 27, 64, 65)) -> Path:
    home = root / "mapillary"
    for split in ("training", "validation"):
        for seed in range(2):
            photo(home / split / "images" / f"{seed:022d}.jpg", seed)
            palette(home / split / labels / f"{seed:022d}.png", labels_array(values, seed))
    return home


def mapillary_v2_tree(root: Path) -> Path:
    return mapillary_tree(root, "v2.0/labels", (0, 2, 21, 61, 122, 123))


def coco_stuff10k_tree(root: Path) -> Path:
    """As MMSegmentation's converter leaves it; `coco_stuff10k_mats` has the files as downloaded."""
    home = root / "coco_stuff10k"
    for split in ("train", "test"):
        names = [f"COCO_train2014_{seed + 9:012d}_{split}" for seed in range(2)]
        for seed, name in enumerate(names):
            photo(home / "images" / f"{split}2014" / f"{name}.jpg", seed)
            values = labels_array([0, 1, 12, 82, 171], seed)
            grey(home / "annotations" / f"{split}2014" / f"{name}_labelTrainIds.png", values)
        lines(home / "imageLists" / f"{split}.txt", names)
    return home


def coco_stuff10k_mats(root: Path) -> Path:
    """The classes of `coco_stuff10k_tree` by their numbers in labels.txt."""
    home = root / "coco_stuff10k"
    for seed, split in enumerate(("train", "test")):
        name = f"COCO_train2014_{seed:012d}"
        photo(home / "images" / f"{name}.jpg", seed)
        values = np.array([0, 1, 13, 93, 182], dtype=np.uint16)[labels_array([0, 1, 2, 3, 4], seed)]
        label_mat(home / "annotations" / f"{name}.mat", "S", values, beside="regionMapStuff")
        lines(home / "imageLists" / f"{split}.txt", [name])
    return home


def sbd_alone_tree(root: Path) -> Path:
    """2 train, 1 val, of photos that `voc_tree` has too."""
    home = root / "benchmark_RELEASE" / "dataset"
    for split, names in (("train", ["2007_000001", "2007_000002"]), ("val", ["2008_000005"])):
        for seed, name in enumerate(names):
            photo(home / "img" / f"{name}.jpg", seed)
            sbd_mat(home / "cls" / f"{name}.mat", labels_array([0, 3, 20], seed))
        lines(home / f"{split}.txt", names)
    return home.parent


def sunrgbd_tree(root: Path) -> Path:
    home = root / "SUNRGBD"
    for split in ("train", "test"):
        for seed in range(1, 3):
            photo(home / "image" / split / f"img-{seed:06d}.jpg", seed)
            grey(home / "semseg-label37" / split / f"{seed:08d}.png", labels_array([0, 1, 36, 255], seed))
    return home


def imagenet_s_tree(root: Path, size: int = 50) -> Path:
    """2 photos of goldfish, 1 of ladybugs a split; the first and last category and `other` in each."""
    home = root / f"ImageNetS{size}"
    for split in ("train-semi", "validation"):
        for seed, name in enumerate(("n01443537/a", "n01443537/b", "n02165456/c")):
            photo((home / split / name).with_suffix(".JPEG"), seed)
            values = np.array([0, 1, size, 1000], dtype=np.uint16)[labels_array([0, 1, 2, 3], seed)]
            packed((home / f"{split}-segmentation" / name).with_suffix(".png"), values)
    return home


def packed(path: Path, values: NDArray[np.integer]) -> Path:
    """A label map of red + 256 * green."""
    wide = values.astype(np.uint16)
    return grey(path, np.stack([wide % 256, wide // 256, 0 * wide], axis=-1).astype(np.uint8))


def relabel(dataset: str, path: Path, values: NDArray[np.integer]) -> Path:
    """Another label map in the place of one of the dataset's, in its encoding."""
    if path.suffix == ".mat":
        return sbd_mat(path, values.astype(np.uint8))
    return packed(path, values) if dataset.startswith("imagenet_s") else grey(path, values)


TREES: dict[str, Callable[[Path], Path]] = {
    "voc": voc_tree,
    "ade20k": ade20k_tree,
    "cityscapes": cityscapes_tree,
    "coco_stuff": coco_stuff_tree,
    "camvid": camvid_tree,
    "pascal_context": pascal_context_tree,
    "pascal_context59": pascal_context_tree,
    "nyudv2": nyudv2_tree,
    "bdd100k": bdd100k_tree,
    "mapillary": mapillary_tree,
    "mapillary_v2": mapillary_v2_tree,
    "coco_stuff10k": coco_stuff10k_tree,
    "sbd": sbd_alone_tree,
    "sunrgbd": sunrgbd_tree,
    "imagenet_s50": imagenet_s_tree,
    "imagenet_s300": partial(imagenet_s_tree, size=300),
    "imagenet_s919": partial(imagenet_s_tree, size=919),
}


def zipped(folder: Path, archive: Path, top: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Packs what is in a folder, below `top`, and removes the folder."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", method) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, (PurePosixPath(top) / path.relative_to(folder).as_posix()).as_posix())
    shutil.rmtree(folder)
    return archive


# MATLAB files, as SBD has them


def sbd_mat(path: Path, values: NDArray[np.uint8], compressed: bool = True) -> Path:
    """`GTcls` with Boundaries (which nobody reads), Segmentation and CategoriesPresent."""
    fields = [("Boundaries", _cell()), ("Segmentation", _numbers(values)), ("CategoriesPresent", _numbers(values[:1]))]
    matrix = _struct("GTcls", fields)
    if compressed:
        packed = zlib.compress(matrix)
        matrix = pack("<II", 15, len(packed)) + packed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + pack("<H", 0x0100) + b"IM" + matrix)
    return path


def label_mat(path: Path, name: str, values: NDArray[np.uint16], beside: str = "") -> Path:
    """A matrix by itself, or beside another of its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    matrices = [(name, values), *([(beside, values * 0 + 7)] if beside else [])]
    data = b"".join(_element(14, _head(11, v.shape, n) + _element(4, v.tobytes(order="F"))) for n, v in matrices)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + pack("<H", 0x0100) + b"IM" + data)
    return path


def _element(kind: int, data: bytes) -> bytes:
    return pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _head(kind: int, shape: tuple[int, ...], name: str) -> bytes:
    return _element(6, pack("<II", kind, 0)) + _element(5, pack(f"<{len(shape)}i", *shape)) + _element(1, name.encode())


def _numbers(values: NDArray[np.uint8]) -> bytes:
    return _element(14, _head(9, values.shape, "") + _element(2, values.tobytes(order="F")))


def _cell() -> bytes:
    return _element(14, _head(1, (1, 1), "") + _numbers(np.zeros((1, 1), dtype=np.uint8)))


def _struct(name: str, fields: list[tuple[str, bytes]]) -> bytes:
    names = b"".join(field.encode().ljust(32, b"\0") for field, _ in fields)
    # the length of field names is written in MATLAB's short form
    head = _head(2, (1, 1), name) + pack("<HHi", 5, 4, 32) + _element(1, names)
    return _element(14, head + b"".join(value for _, value in fields))
