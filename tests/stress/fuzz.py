"""Feeds damaged and hostile files to every reader: `python tests/stress/fuzz.py --count 10000 --seed 0`.

Valid files of every kind are built, bent (flipped bits, cuts, holes, splices, wrong lengths, mistyped keys, swapped
values, doubled lines, control characters) and read in this process under limits of time and memory.  A file may be
refused with an MdpError, or read as what it was before.  Where the format has a checksum, anything else is a failure;
where it has none (BMP, TIFF, PPM, text) a difference cannot be noticed by anybody and is counted as such, but what
comes out still lies within the label space and the dataset's folder.  Failures: a wrong value, a path outside, code
that ran, a message with control characters, a traceback, a hang, memory.  The same seed gives the same inputs.
"""

import argparse
import faulthandler
import io
import json
import os
import pickle
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, too

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mdp.core.labels import LabelUnion
from mdp.io.datasets import own
from mdp.io.datasets._dataset import labels_of
from mdp.io.datasets.own import description
from mdp.io.datasets.own.label_space import CLASS_KEYS
from mdp.io.errors import MdpError
from mdp.io.files.photos import read_rgb
from mdp.io.files.reading import has_controls
from mdp.io.recipe.layers import as_yaml, config_layer, resolve
from mdp.io.recipe.methods import method_names
from mdp.io.run.checkpoint import load as load_checkpoint
from mdp.io.run.checkpoint import save
from mdp.io.weights.reading import read_weights
from tests.trees import grey, labels_array, palette, photo, sbd_mat

SIZE = (24, 36)
VALUES = (0, 1, 3)
FAILURES = ("wrong", "outside", "ran code", "message", "traceback", "hang", "memory")
COLUMNS = ("valid", "refused", "same", "differs", *FAILURES)
LONGEST_MESSAGE = 4000
STRANGE = (
    "-1", "1e999", ".nan", "null", "true", "{}", "[]", "[1, 2]", "99999999999999999999", "../private", "/etc/passwd",
    "~", "..\\private", "*a", "&a", "!!python/name:os.system", "#ffffff", "images/../../private", '"\\e[2J"', "-0",
)  # fmt: skip
Mutation = Callable[[random.Random, bytes, "Case"], bytes]


class TimeUp(BaseException):
    """An input took too long; no `except Exception` swallows it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A valid (or hostile) file, and how it is read."""

    kind: str
    name: str
    data: bytes
    path: Path  # where a bent copy is put
    read: Callable[[Path], Any]  # something that compares equal when the same was read
    checked: bool = False  # the format has a checksum, or its reader a rule, so that no difference goes unseen
    hostile: bool = False  # to be refused as it is
    keys: frozenset[str] = frozenset()  # of a YAML file: mistyped, each of them must be refused


# What is read


def dataset_text(split: str, label_format: str = "{0: road, 1: car, 3: {name: sky, values: [3, 4]}}") -> str:
    return f"name: site\nsplits:\n  train: {{{split}}}\nignore: [9]\nclasses: {label_format}\n"


def read_dataset(path: Path, base: Path, yaml: Path) -> Any:
    """All that a dataset says about its first training image; `path` is a part of it."""
    dataset = own.load_own(yaml)
    split = dataset.train[0]
    samples = dataset.samples(base, split)
    for sample in samples:
        for file in (sample.image, sample.labels):
            real = os.path.realpath(file)
            if not real.startswith(f"{os.path.realpath(base)}{os.sep}"):
                raise Outside(f"{file} is {real}")
    described = (dataset.name, dataset.labels, dict(dataset.splits), dataset.home, samples)
    if not samples:
        return described
    _, raw = dataset.read(samples[0])
    classes = labels_of(LabelUnion([dataset.labels]), samples[0], raw, dataset.source).numpy()
    if classes.min() < -1 or classes.max() >= len(dataset.labels.classes):
        raise WrongValue("a class outside the label space")
    return (*described, classes.shape, classes.tobytes())


class Outside(Exception):
    """A file outside the dataset's folder was accepted."""


class WrongValue(Exception):
    """What was read cannot be right."""


def read_photo(path: Path) -> Any:
    rgb = read_rgb(str(path))
    return rgb.shape, rgb.tobytes()


def read_recipe(path: Path) -> Any:
    return repr(resolve(config_layer(path)))


def read_checkpoint(path: Path) -> Any:
    found = load_checkpoint(path)
    return numbers(found.tensors), json.dumps(found.about, sort_keys=True)


def read_foreign(path: Path) -> Any:
    return numbers(read_weights(path)[0])


def numbers(tensors: dict[str, Tensor]) -> Any:
    return {name: (tensor.dtype, tensor.shape, tensor.numpy().tobytes()) for name, tensor in tensors.items()}


# Valid files


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def image_cases(folder: Path) -> Iterator[Case]:
    picture = Image.open(photo(folder / "photo.png", 0, SIZE)).convert("RGB")
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "jpeg": ("JPEG", ".jpg", {}),
        "jpeg progressive": ("JPEG", ".jpg", {"progressive": True}),
        "png": ("PNG", ".png", {}),
        "bmp": ("BMP", ".bmp", {}),
        "tiff": ("TIFF", ".tif", {}),
        "tiff packed": ("TIFF", ".tif", {"compression": "tiff_lzw"}),
        "webp": ("WEBP", ".webp", {}),
        "ppm": ("PPM", ".ppm", {}),
    }
    for name, (kind, suffix, options) in kinds.items():
        data = encoded(picture, kind, **options)
        yield Case(kind="images", name=name, data=data, path=folder / f"bent{suffix}", read=read_photo,
                   checked=kind == "PNG")  # fmt: skip
    for name, (suffix, data) in image_bombs().items():
        yield Case(kind="images", name=f"bomb: {name}", data=data, path=folder / f"bomb{suffix}", read=read_photo,
                   hostile=True)  # fmt: skip


def label_cases(folder: Path) -> Iterator[Case]:
    values = labels_array(VALUES, 0, SIZE)
    photo(folder / "images" / "a.jpg", 0, SIZE)
    files: dict[str, tuple[str, bytes, bool]] = {}
    for depth in (2, 4, 8, 16):
        files[f"png grey {depth}"] = (".png", png(values, depth), True)
        if depth < 16:
            files[f"png palette {depth}"] = (".png", png(values, depth, 3), True)
    files["png palette"] = (".png", palette(folder / "a.png", values).read_bytes(), True)
    for suffix in (".bmp", ".tif", ".pgm"):
        files[suffix[1:]] = (
            suffix if suffix != ".pgm" else ".png",
            grey(folder / f"a{suffix}", values).read_bytes(),
            False,
        )
    files["tif 16 packed"] = (
        ".tif", encoded(Image.fromarray(values.astype(np.uint16)), "TIFF", compression="tiff_adobe_deflate"), False,
    )  # fmt: skip
    files["mat"] = (".mat", sbd_mat(folder / "a.mat", values, compressed=False).read_bytes(), False)
    files["mat packed"] = (".mat", sbd_mat(folder / "a.mat", values).read_bytes(), True)
    yaml = folder / "site.yaml"
    yaml.write_text(dataset_text("images: images, labels: labels"))
    (folder / "labels").mkdir()

    def read(path: Path) -> Any:
        try:
            return read_dataset(path, folder, yaml)
        finally:
            path.unlink()  # the next case has another suffix

    for name, (suffix, data, checked) in files.items():
        yield Case(kind="labels", name=name, data=data, path=folder / "labels" / f"a{suffix}", read=read,
                   checked=checked)  # fmt: skip
    for name, data in mat_bombs().items():
        yield Case(kind="labels", name=f"bomb: {name}", data=data, path=folder / "labels" / "a.mat", read=read,
                   hostile=True)  # fmt: skip


def split_cases(folder: Path) -> Iterator[Case]:
    inside = folder / "site"
    for home in (inside, folder / "private"):
        for i, stem in enumerate(("a", "b", "c.v2", "d")):
            photo(home / "images" / f"{stem}.jpg", i, SIZE)
            grey(home / "labels" / f"{stem}.png", labels_array(VALUES, i, SIZE))
    (inside / "images" / "way_out.jpg").symlink_to(folder / "private" / "images" / "a.jpg")
    (inside / "way_out").symlink_to(folder / "private")
    os.mkfifo(inside / "images" / "pipe.jpg")
    yaml = inside / "site.yaml"
    yaml.write_text(dataset_text("images: images, labels: labels, list: list.txt"))
    lists = {
        "ids": "a\nb\nc.v2\nd\n",
        "names": "a.jpg\nc.v2.jpg\n\nb.jpg\n",
        "pairs": "images/a.jpg labels/a.png\r\nimages/b.jpg\tlabels/b.png\r\nimages/c.v2.jpg labels/c.v2.png\r\n",
    }
    for name, text in lists.items():
        yield Case(kind="splits", name=name, data=text.encode(), path=inside / "list.txt",
                   read=lambda path: read_dataset(path, inside, yaml))  # fmt: skip
    for name, text in hostile_lists(folder).items():
        yield Case(kind="splits", name=f"hostile: {name}", data=text, path=inside / "list.txt",
                   read=lambda path: read_dataset(path, inside, yaml), hostile=True)  # fmt: skip


DATASET_KEYS = frozenset((*description.KEYS, *description.SPLIT_KEYS, *CLASS_KEYS))


def yaml_cases(folder: Path) -> Iterator[Case]:
    for i, stem in enumerate(("a", "b")):
        photo(folder / "images" / f"{stem}.jpg", i, SIZE)
        grey(folder / "labels" / f"{stem}.png", labels_array(VALUES, i, SIZE))
        grey(folder / "labels" / f"{stem}_gt.png", labels_array(VALUES, i, SIZE))
    (folder / "list.txt").write_text("a\nb\n")
    (folder / "labels_only").mkdir()
    colored = '{0: {name: road, color: "#102030"}, 1: {name: car, values: [1, 2], colors: ["#804080"]}, 3: sky}'
    texts = {
        "dataset": dataset_text('images: images, labels: labels, label: "{stem}_gt.png", list: list.txt'),
        "dataset in colour": dataset_text(
            'images: images, labels: labels, label: "{stem}.png", list: list.txt', colored
        )
        + "ignore_index: 255\nhome: somewhere\n",
    }
    for name, text in texts.items():
        yield Case(kind="yaml", name=name, data=text.encode(), path=folder / "site.yaml", keys=DATASET_KEYS,
                   read=lambda path: read_dataset(path, folder, path))  # fmt: skip
    for method in method_names():
        text = as_yaml(resolve({"method": {"name": method}}))
        yield Case(kind="yaml", name=f"recipe {method}", data=text.encode(), path=folder / "recipe.yaml",
                   read=read_recipe, keys=frozenset(re.findall(r"(\w+):", text)))  # fmt: skip
    for name, text in hostile_yaml(folder).items():
        for reader, read in (("dataset", lambda path: read_dataset(path, folder, path)), ("recipe", read_recipe)):
            yield Case(kind="yaml", name=f"hostile {reader}: {name}", data=text, path=folder / "bad.yaml", read=read,
                       hostile=True)  # fmt: skip


def checkpoint_cases(folder: Path) -> Iterator[Case]:
    rng = torch.Generator().manual_seed(0)
    tensors = {
        "network.a": torch.randn(7, 5, generator=rng),
        "network.b": torch.arange(9),
        "network.c": torch.ones(3) > 0,
    }
    label_space = {"name": "site", "classes": ["a", "b"], "ignore_index": 255, "lookup": None, "colors": []}
    about = {"kind": "finetune", "step": 7, "recipe": {}, "labels": [label_space]}
    save(folder / "seed.safetensors", tensors, about)
    data = (folder / "seed.safetensors").read_bytes()
    path = folder / "bent.safetensors"
    yield Case(kind="checkpoints", name="mdp", data=data, path=path, read=read_checkpoint, checked=True)
    yield Case(kind="checkpoints", name="mdp as weights", data=data, path=path, read=read_foreign, checked=True)
    header = {
        name: {"dtype": "F32", "shape": [3], "data_offsets": [12 * i, 12 * i + 12]} for i, name in enumerate("ab")
    }
    text = json.dumps(header).encode()
    plain = len(text).to_bytes(8, "little") + text + np.arange(6, dtype=np.float32).tobytes()
    yield Case(kind="checkpoints", name="safetensors", data=plain, path=path, read=read_foreign)
    for name, modern in (("pth", True), ("pth before 1.6", False)):
        stream = io.BytesIO()
        torch.save({"state_dict": tensors}, stream, _use_new_zipfile_serialization=modern)
        yield Case(kind="checkpoints", name=name, data=stream.getvalue(), path=folder / "bent.pth", read=read_foreign,
                   checked=modern)  # fmt: skip
    for name, data in malicious_pickles(folder).items():
        yield Case(kind="checkpoints", name=f"hostile: {name}", data=data, path=folder / "bent.pth", read=read_foreign,
                   hostile=True)  # fmt: skip


# Hostile files


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: NDArray[np.integer], depth: int, kind: int = 0, first: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of exactly this bit depth, grey (kind 0) or palette (3), with chunks before and after its header."""
    height, width = values.shape
    bits = (values[..., None].astype(np.int64) >> np.arange(depth)[::-1] & 1).reshape(height, -1).astype(np.uint8)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    colors = chunk(b"PLTE", bytes(i % 256 for i in range(3 * 2**depth))) if kind == 3 else b""
    body = first + head + after + colors + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@cache
def zeros(size: int, start: bytes = b"") -> bytes:
    """So many bytes, nearly all of them zeros, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    packed = [packer.compress(start)]
    left = size - len(start)
    while left > 0:
        packed.append(packer.compress(bytes(min(2**20, left))))
        left -= 2**20
    return b"".join(packed) + packer.flush()


def png_claim(width: int, height: int, extra: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zeros(100)) + chunk(b"IEND", b"")


def tiff_claim(tags: dict[int, tuple[int, int, int]], data: bytes = b"") -> bytes:
    """A TIFF of 64 x 64 grey pixels, with these tags (type, count, value) besides or instead."""
    basic = {256: (4, 1, 64), 257: (4, 1, 64), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), 277: (3, 1, 1)}
    entries = sorted({**basic, **tags}.items())
    start = 8 + 2 + 12 * len(entries) + 4  # a value of -1 stands for where the data lie
    directory = b"".join(
        struct.pack("<HHII", tag, *entry[:2], entry[2] if entry[2] >= 0 else start) for tag, entry in entries
    )
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + data


def image_bombs() -> dict[str, tuple[str, bytes]]:
    """Suffix and content of small files that ask for much memory, or for much time."""
    packed = zeros(2**28)
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xfe\x3f\0" * 2
    frame = encoded(Image.new("RGB", (4, 4)), "WEBP", lossless=True)[12:]
    animated = (
        b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(16) + frame
    )
    webp = b"WEBP" + canvas + animated
    jpeg = encoded(Image.new("L", (4000, 4000), 128), "JPEG", progressive=True)
    last_scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    bmp = encoded(Image.new("L", (8, 8)), "BMP")
    tile = {322: (4, 1, 2**15), 323: (4, 1, 2**15), 324: (4, 1, -1), 325: (4, 1, len(packed))}
    return {
        "png of 10^18 pixels": (".png", png_claim(2**30, 2**30)),
        "png of 81 million pixels": (".png", png_claim(9000, 9000)),
        "zTXt": (".png", png_claim(4, 4, chunk(b"zTXt", b"a\0\0" + packed))),
        "iTXt": (".png", png_claim(4, 4, chunk(b"iTXt", b"a\0\1\0\0\0" + packed))),
        "colour profile": (".png", png_claim(4, 4, chunk(b"iCCP", b"a\0\0" + packed))),
        "webp canvas": (".webp", b"RIFF" + struct.pack("<I", len(webp)) + webp),
        "tiff of 10^12 pixels": (".tif", tiff_claim({256: (4, 1, 2**20), 257: (4, 1, 2**20)})),
        "tiff tile": (".tif", tiff_claim(tile, packed)),
        "tiff counts": (".tif", tiff_claim({273: (3, 2**21, -1), 279: (3, 2**21, -1)}, bytes(2**22))),
        "jpeg scans": (".jpg", jpeg[:-2] + 3000 * last_scan + jpeg[-2:]),
        "bmp of 10^18 pixels": (".bmp", bmp[:18] + struct.pack("<ii", 2**31 - 1, -(2**31) + 1) + bmp[26:]),
        "ppm of 10^15 pixels": (".ppm", b"P6 99999999 99999999 255\n"),
    }


def mat_file(*elements: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + b"".join(elements)


def mat_bombs() -> dict[str, bytes]:
    """`.mat` files that unpack to more than they should, or claim to."""
    packed = zeros(2**28 - 8, struct.pack("<II", 2, 2**28 - 16))
    element = struct.pack("<II", 15, len(packed)) + packed
    head = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, 2**30, 2**30) + struct.pack("<II", 1, 0)
    cells = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1) + struct.pack("<II", 1, 0)
    cells += struct.pack("<II", 14, 0) * 200_000
    crowd = zlib.compress(struct.pack("<II", 14, len(cells)) + cells)
    return {
        "mat unpacks too far": mat_file(*[element] * 20),
        "mat of 10^18 pixels": mat_file(struct.pack("<II", 14, len(head) + 8) + head + struct.pack("<II", 9, 0)),
        "mat element of 4 GB": mat_file(struct.pack("<II", 14, 2**32 - 16) + head),
        "mat of 200,000 cells": mat_file(struct.pack("<II", 15, len(crowd)) + crowd),
    }


def hostile_lists(folder: Path) -> dict[str, bytes]:
    """Lists that lead elsewhere, or into what is no file."""
    label = "labels/a.png"
    return {
        "up": f"../private/images/a.jpg {label}\n".encode(),
        "up and down": f"images/../../private/images/a.jpg {label}\n".encode(),
        "absolute": f"{folder}/private/images/a.jpg {label}\n".encode(),
        "label map": b"images/a.jpg ../private/labels/a.png\n",
        "file link": f"images/way_out.jpg {label}\n".encode(),
        "folder link": f"way_out/images/a.jpg {label}\n".encode(),
        "link by id": b"way_out\n",
        "windows": f"images\\a.jpg {label}\n".encode(),
        "drive": f"C:/a.jpg {label}\n".encode(),
        "dots": b"..\n",
        "pipe": f"images/pipe.jpg {label}\n".encode(),
        "folder": f"images {label}\n".encode(),
        "terminal": b"\x1b]0;owned\x07\x1b[2J\n",
        "zero byte": b"a\0b\n",
        "long": b"a" * 5000 + b"/b.jpg labels/a.png\n",
    }


def hostile_yaml(folder: Path) -> dict[str, bytes]:
    """Documents that would run code, explode, lead elsewhere or colour the terminal."""
    touch = f"touch {folder}/ran"
    nested = "\n".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))
    lead = 'name: site\nclasses: {0: road}\nsplits: {train: {images: "%s", labels: labels}}\n'
    return {
        "python": f"name: !!python/object/apply:os.system ['{touch}']\n".encode(),
        "python new": f"!!python/object/new:os.system ['{touch}']\n".encode(),
        "laughs": f"a0: &a0 [x, x]\n{nested}\n".encode(),
        "merge": b"a: &a {b: 1}\nc: {<<: *a}\n",
        "deep": b"a: " + b"[" * 100_000,
        "wide": b"a: [" + b"1," * 500_000 + b"]",
        "digits": b"a: " + b"1" * 900_000,
        "two documents": b"name: a\n---\nname: b\n",
        "twice": b"name: a\nname: b\n",
        "utf-16": "name: a\n".encode("utf-16"),
        "latin-1": "name: é\n".encode("latin-1"),
        "terminal": b'"\\e]0;owned\\a": 1\n',
        "terminal in a value": b'name: "\\e[2J"\n',
        "long key": b"? " + b"k" * 100_000 + b"\n: 1\n",
        "large": b"a: " + b"x" * 2**20,
        "up": (lead % "../private").encode(),
        "absolute": (lead % "/etc").encode(),
        "windows": (lead % "..\\\\private").encode(),
        "half a character": (lead % "\\ud800").encode(),
    }


class Call:
    """Pickled, it is a call; unpickled carelessly, the call is made."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def malicious_pickles(folder: Path) -> dict[str, bytes]:
    """Weights files that make a file `ran` when they are loaded carelessly, or ask for much memory."""
    run = Call(os.system, f"touch {folder}/ran")
    files = {
        "raw": pickle.dumps(run, protocol=2),
        "eval": pickle.dumps(Call(eval, f"open({str(folder / 'ran')!r}, 'w')")),
    }
    for name, modern in (("zip", True), ("before 1.6", False)):
        stream = io.BytesIO()
        torch.save({"state_dict": {"a": torch.ones(2), "b": run}}, stream, _use_new_zipfile_serialization=modern)
        files[name] = stream.getvalue()
    files["4 GB"] = pickle.dumps(Call(bytearray, 4 * 10**9), protocol=2)
    files["nested"] = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    return files


# Bending


def flip_a_bit(rng: random.Random, data: bytes, case: Case) -> bytes:
    place, bent = rng.randrange(len(data)), bytearray(data)
    bent[place] ^= 1 << rng.randrange(8)
    return bytes(bent)


def flip_bits(rng: random.Random, data: bytes, case: Case) -> bytes:
    for _ in range(rng.randint(2, 16)):
        data = flip_a_bit(rng, data, case)
    return data


def cut(rng: random.Random, data: bytes, case: Case) -> bytes:
    return data[: rng.randrange(len(data))]


def hole(rng: random.Random, data: bytes, case: Case) -> bytes:
    start, end = span(rng, data)
    return data[:start] + bytes(end - start) + data[end:]


def drop(rng: random.Random, data: bytes, case: Case) -> bytes:
    start, end = span(rng, data)
    return data[:start] + data[end:]


def splice(rng: random.Random, data: bytes, case: Case) -> bytes:
    start, end = span(rng, data)
    other = rng.randrange(len(data))
    return data[:other] + data[start:end] + data[other + (end - start if rng.random() < 0.5 else 0) :]


def lengths(rng: random.Random, data: bytes, case: Case) -> bytes:
    place, bent = rng.randrange(min(len(data), 400)), bytearray(data)
    value = rng.choice([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(data), rng.getrandbits(32)])
    bent[place : place + 4] = struct.pack(rng.choice("<>") + "I", value)
    return bytes(bent)


def controls(rng: random.Random, data: bytes, case: Case) -> bytes:
    place = rng.randrange(len(data))
    what = rng.choice(
        [b"\x1b[31m", b"\x1b]0;x\x07", b"\0", b"\r", b"\x9b2J", b"\xc2\x9b2J", b"\xe2\x80\xae", b"\xff\xfe", b"\t"]
    )
    return data[:place] + what + data[place:]


def mistype(rng: random.Random, data: bytes, case: Case) -> bytes:
    """One known key with a letter dropped, doubled, changed or swapped; never into another known key."""
    text = data.decode()
    found = [match for match in re.finditer(r"(\w+)(?=:)", text) if match[1] in case.keys]
    while True:
        match = rng.choice(found)
        key, place = match[1], rng.randrange(len(match[1]))
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz_")
        typo = rng.choice([
            key[:place] + key[place + 1 :], key[:place] + letter + key[place:], key[:place] + letter + key[place + 1 :],
            key[:place] + key[place : place + 2][::-1] + key[place + 2 :],
        ])  # fmt: skip
        if typo and typo not in case.keys:
            return (text[: match.start()] + typo + text[match.end() :]).encode()


def swap_value(rng: random.Random, data: bytes, case: Case) -> bytes:
    """One word replaced by another, or by something that should not be there."""
    text = data.decode()
    word = rng.choice(list(re.finditer(r"[\w./{}\[\]\"#-]+", text)))
    other = rng.choice([*STRANGE, *re.findall(r"[\w./-]+", text)])
    return (text[: word.start()] + other + text[word.end() :]).encode()


def double_line(rng: random.Random, data: bytes, case: Case) -> bytes:
    lines = data.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return b"".join(lines)


def span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice([1, 2, 4, 16, 64, 4096]))


BINARY: tuple[Mutation, ...] = (
    flip_a_bit,
    flip_a_bit,
    flip_a_bit,
    flip_bits,
    cut,
    hole,
    drop,
    splice,
    lengths,
    controls,
)
TEXT: tuple[Mutation, ...] = (flip_a_bit, cut, drop, splice, controls, swap_value, swap_value, double_line)


def bend(rng: random.Random, case: Case) -> tuple[str, bytes]:
    """A bent copy, and how it was bent; sometimes the file as it is, to see that it is read."""
    if rng.random() < 0.02:
        return "as it is", case.data
    if case.keys and rng.random() < 0.3:
        return "mistype", mistype(rng, case.data, case)
    kinds = TEXT if case.kind in ("splits", "yaml") else BINARY
    names, data = [], case.data
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        mutation = rng.choice(kinds)
        try:
            data = mutation(rng, data, case) if data else data
        except UnicodeDecodeError:  # bent before, and no longer text
            data = flip_a_bit(rng, data, case)
        except IndexError:  # nothing left to swap
            continue
        names.append(mutation.__name__)
    return "+".join(names) or "as it is", data


# Reading what was bent


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def up(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, up)
    # for C code that never comes back to Python
    faulthandler.dump_traceback_later(6 * seconds, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def outcome(case: Case, how: str, data: bytes, expected: Any, ran: Path, seconds: float) -> tuple[str, str]:
    """The column that an input belongs to, and what there is to say about it."""
    case.path.write_bytes(data)
    try:
        with at_most(seconds):
            value = case.read(case.path)
    except TimeUp:
        return "hang", f"not done after {seconds} s"
    except MdpError as error:
        verdict, note = refused(error)
    except MemoryError:
        return "memory", traceback.format_exc()
    except (Outside, WrongValue) as error:
        return ("outside" if isinstance(error, Outside) else "wrong"), str(error)
    except Exception:
        return "traceback", traceback.format_exc()
    else:
        verdict, note = accepted(case, how, data, value == expected)
    if ran.exists():
        ran.unlink()
        return "ran code", ""
    return verdict, note


def refused(error: MdpError) -> tuple[str, str]:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return "memory", str(error)
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    # a proposal for a YAML file has lines of its own
    if has_controls(text.replace("\n", "")) or len(text) > LONGEST_MESSAGE:
        return "message", f"{len(text)} characters: {text[:300]!r}"
    return "refused", ""


def accepted(case: Case, how: str, data: bytes, same: bool) -> tuple[str, str]:
    if case.hostile:
        return ("wrong", "a hostile file was accepted") if data == case.data else ("differs", "")
    if data == case.data:
        return ("valid", "") if same else ("wrong", "a valid file is read in two ways")
    strict = case.kind == "labels" and case.name.startswith("png") and how == "flip_a_bit"
    if strict or (not same and (case.checked or how == "mistype")):
        return "wrong", f"accepted after {how}" + ("" if same else ", with another value")
    return ("same", "") if same else ("differs", "")


CASES = {
    "images": image_cases,
    "labels": label_cases,
    "splits": split_cases,
    "yaml": yaml_cases,
    "checkpoints": checkpoint_cases,
}


def fuzz(kinds: list[str], count: int, seed: int, seconds: float, keep: Path | None) -> dict[str, Counter[str]]:
    """How often each row of the table had each outcome."""
    rows: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="mdp-fuzz-") as name:
        for number, kind in enumerate(kinds):
            share = count // len(kinds) + (number < count % len(kinds))
            folder = Path(name) / kind
            folder.mkdir()
            cases = list(CASES[kind](folder))
            expected = {case.name: expected_of(case) for case in cases if not case.hostile}
            hostile = [case for case in cases if case.hostile]
            others = [case for case in cases if not case.hostile]
            for i in range(share):
                rng = random.Random(f"{seed}/{kind}/{i}")
                # each hostile file once as it is, then one input in eight is a bent one
                case = hostile[i] if i < len(hostile) else rng.choice(hostile if rng.random() < 0.125 else others)
                how, data = ("as it is", case.data) if i < len(hostile) else bend(rng, case)
                verdict, note = outcome(case, how, data, expected.get(case.name), folder / "ran", seconds)
                row = f"{kind}: hostile" if case.hostile else f"{kind}: {case.name}"
                rows.setdefault(row, Counter())[verdict] += 1
                if verdict in FAILURES:
                    tell(case, i, how, verdict, note, data, keep)
    return rows


def expected_of(case: Case) -> Any:
    case.path.write_bytes(case.data)
    return case.read(case.path)


def tell(case: Case, number: int, how: str, verdict: str, note: str, data: bytes, keep: Path | None) -> None:
    where = ""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        file = keep / f"{case.kind}_{number}{case.path.suffix}"
        file.write_bytes(data)
        where = f" [{file}]"
    print(f"{verdict}: {case.kind} {case.name}, input {number} ({how}){where}\n{note}", file=sys.stderr)


def table(rows: dict[str, Counter[str]]) -> str:
    total: Counter[str] = sum(rows.values(), Counter())
    lines = [f"{'':34}{'inputs':>8}" + "".join(f"{column:>10}" for column in COLUMNS)]
    for name, counts in [*rows.items(), ("all", total)]:
        lines.append(f"{name:34}{sum(counts.values()):8}" + "".join(f"{counts[column]:10}" for column in COLUMNS))
    return "\n".join(lines)


def limit_memory(mebibytes: int) -> None:
    """So much more address space than this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default=",".join(CASES), help="some of " + ",".join(CASES))
    parser.add_argument("--seconds", type=float, default=10, help="time for an input")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that an input may take")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    options = parser.parse_args()
    kinds = options.kind.split(",")
    if set(kinds) - set(CASES):
        parser.error(f"--kind: expected some of {', '.join(CASES)}, got {options.kind}")
    warnings.simplefilter("ignore")  # of Pillow and torch about damaged files
    torch.set_num_threads(1)
    if Path("/proc/self/statm").exists():
        limit_memory(options.memory)
    rows = fuzz(kinds, options.count, options.seed, options.seconds, options.keep)
    print(table(rows))
    print("differs: another value, in a format without checksum; nobody could tell")
    failed = sum(counts[column] for counts in rows.values() for column in FAILURES)
    print(f"{failed} failures, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB at most")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
