"""Miniature exports of annotation tools, as the tools lay them out."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.trees import HEIGHT, WIDTH, grey, photo

BOX = [8, 8, 40, 8, 40, 40, 8, 40]  # x, y of the corners: 32 x 32 pixels
ON_BOX = [24, 24, 56, 24, 56, 56, 24, 56]  # overlaps it in 16 x 16 pixels, and is drawn later
WITHIN = [12, 12, 20, 12, 20, 20, 12, 20]  # lies on the first


def coco_values(photos: Sequence[str]) -> dict[str, Any]:
    """Two polygons that overlap, and sky as run lengths, in each photo."""
    sky = np.zeros((HEIGHT, WIDTH), dtype=bool)
    sky[:4] = True
    runs = [length for _ in range(WIDTH) for length in (0, 4, HEIGHT - 4)]
    counts = [0, 4, *[length for _ in range(WIDTH - 1) for length in (HEIGHT - 4, 4)], HEIGHT - 4]
    assert sum(runs) == sum(counts) == HEIGHT * WIDTH
    annotations = [
        annotation
        for image in range(len(photos))
        for annotation in (
            {"image_id": image, "category_id": 1, "segmentation": [BOX], "iscrowd": 0},
            {"image_id": image, "category_id": 2, "segmentation": [ON_BOX], "iscrowd": 0},
            {"image_id": image, "category_id": 3, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}},
        )
    ]
    return {
        "images": [{"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(photos)],
        "annotations": [{"id": i, **entry} for i, entry in enumerate(annotations)],
        "categories": [
            {"id": 0, "name": "shots", "supercategory": "none"},  # Roboflow's, which marks nothing
            {"id": 1, "name": "car", "supercategory": "shots"},
            {"id": 2, "name": "road", "supercategory": "shots"},
            {"id": 3, "name": "sky", "supercategory": "shots"},
        ],
    }


def coco_tree(root: Path, splits: Sequence[str] = ("train", "valid")) -> Path:
    """A folder a split with photos and `_annotations.coco.json`, as Roboflow exports them."""
    for number, split in enumerate(splits):
        names = [f"shot_{number}{i}.jpg" for i in range(2)]
        for seed, name in enumerate(names):
            photo(root / split / name, 10 * number + seed)
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco_values(names)))
    return root


def png_base64(mask: NDArray[np.bool_]) -> str:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def labelme_values(name: str) -> dict[str, Any]:
    """A shape of most kinds."""
    shapes = [
        ("car", "polygon", np.reshape(BOX, (-1, 2)).tolist()),
        ("road", "rectangle", [[24, 24], [55, 55]]),
        ("sun", "circle", [[80, 12], [84, 12]]),
        ("wire", "linestrip", [[0, 60], [50, 60], [95, 50]]),
        ("__ignore__", "point", [[90, 60]]),
    ]
    drawn = [{"label": label, "shape_type": kind, "points": points} for label, kind, points in shapes]
    mask = {
        "label": "sun",
        "shape_type": "mask",
        "points": [[60, 0], [63, 3]],
        "mask": png_base64(np.eye(4, dtype=bool)),
    }
    return {
        "version": "5.5.0", "flags": {}, "shapes": [*drawn, mask], "imagePath": name, "imageData": "not looked at",
        "imageHeight": HEIGHT, "imageWidth": WIDTH,
    }  # fmt: skip


def labelme_tree(root: Path, count: int = 3) -> Path:
    """Photos with a JSON file beside each, and `labels.txt`."""
    for seed in range(count):
        photo(root / "photos" / f"shot_{seed}.jpg", seed)
        (root / "photos" / f"shot_{seed}.json").write_text(json.dumps(labelme_values(f"shot_{seed}.jpg")))
    (root / "labels.txt").write_text("__ignore__\n_background_\ncar\nroad\nsun\nwire\n")
    return root


def yolo_tree(root: Path, splits: Sequence[str] = ("train", "val")) -> Path:
    """`images` and `labels` with a folder a split, outlines as shares of the photo's size, and `data.yaml`."""
    car, road = (
        " ".join(f"{part / size:.6f}" for part, size in zip(box, (WIDTH, HEIGHT) * 4, strict=True))
        for box in (BOX, ON_BOX)
    )
    for number, split in enumerate(splits):
        for i, text in enumerate((f"0 {car}\n2 {road}\n", "")):  # the second photo shows neither
            photo(root / "images" / split / f"shot_{number}{i}.jpg", 10 * number + i)
            (root / "labels" / split).mkdir(parents=True, exist_ok=True)
            (root / "labels" / split / f"shot_{number}{i}.txt").write_text(text)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: car, 2: road}\n")
    return root


def nnunet_tree(root: Path) -> Path:
    """`imagesTr`, `labelsTr`, a photo of a test without label map, and `dataset.json` with a label for what is none."""
    for i in range(3):
        photo(root / "imagesTr" / f"site_{i:03}_0000.png", i)
        grey(
            root / "labelsTr" / f"site_{i:03}.png",
            np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8) % 3,
        )
    photo(root / "imagesTs" / "site_009_0000.png", 9)
    labels = {"background": 0, "road": 1, "ignore": 2}
    (root / "dataset.json").write_text(
        json.dumps(
            {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": labels, "numTraining": 3, "file_ending": ".png"}
        )
    )
    return root


def label_studio_tree(root: Path) -> Path:
    """Photos with their uploads' names, masks of single classes, and the project's JSON export."""
    tasks = []
    for task in (1, 2):
        photo(root / "photos" / f"shot_{task}.jpg", task)
        tasks.append({"id": task, "data": {"image": f"/data/upload/1/0a1b2c3d-shot_{task}.jpg"}})
        for name, rows in (("car", slice(0, 20)), ("street-lamp", slice(30, 50))):
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            mask[rows] = 255
            grey(root / "masks" / f"task-{task}-annotation-{task + 10}-by-1-tag-{name}-0.png", mask)
    (root / "masks" / "project.json").write_text(json.dumps(tasks))
    return root
