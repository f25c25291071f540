"""Miniature datasets in the official layouts: a few small pictures per split, with several classes in each."""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from struct import pack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdp.io.images import voc_colormap

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


TREES = {
    "voc": voc_tree,
    "ade20k": ade20k_tree,
    "cityscapes": cityscapes_tree,
    "coco_stuff": coco_stuff_tree,
    "camvid": camvid_tree,
}


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
