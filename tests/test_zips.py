"""Zip archives as folders: the same data as unpacked, from every kind of process; hostile ones refused in one line."""

import io
import json
import multiprocessing
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdp.io.check.job import run_check
from mdp.io.check.remembered import fingerprint
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split, open_training
from mdp.io.errors import DatasetError, MdpError
from mdp.io.files import zips
from mdp.io.files.reading import exists, is_dir, is_file, listed, locate, read_bytes, stamp
from mdp.io.recipe.layers import as_layer, resolve
from mdp.io.recipe.request import Request, with_paths
from mdp.io.training.job import run_pretraining
from tests import trees
from tests.test_own_data import recipe_with
from tests.trees import grey, labels_array, lines, own_yaml, photo, zipped

pytestmark = pytest.mark.usefixtures("bare_runs")

YAML = """
name: site
splits: {train: {images: a.zip/images, labels: a.zip/labels}}
classes: {0: road, 1: car}
"""


def pack(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def content(path: Path | str) -> bytes:
    return read_bytes(str(path), "file")


def refusal(path: Path) -> str:
    """The one line with which a file in an archive is refused."""
    with pytest.raises(MdpError) as caught:
        content(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The same as unpacked


@given(
    st.dictionaries(
        st.lists(st.text("abc-ä .", min_size=1).filter(lambda part: part.strip(".") and not part.endswith(".zip")),
                 min_size=1, max_size=3).map("/".join),
        st.binary(max_size=300), max_size=6,
    ),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)  # fmt: skip
def test_files_in_an_archive_are_listed_and_read_as_packed(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, bytes], method: int
) -> None:
    folders = {name.rsplit("/", end)[0] for name in entries for end in range(1, name.count("/") + 1)}
    if folders & set(entries):
        return  # a file cannot be a folder
    path = pack(tmp_path_factory.mktemp("zip") / "a.zip", entries, method)
    assert is_dir(path)
    for name, data in entries.items():
        assert content(path / name) == data
        assert is_file(path / name)
        assert not is_dir(path / name)
    for folder in ["", *folders]:
        start = f"{folder}/" if folder else ""
        inside = [name.removeprefix(start) for name in entries if name.startswith(start)]
        expected = {(name.split("/")[0], "/" in name) for name in inside}
        assert set(listed(path / folder)) == expected
        assert len(listed(path / folder)) == len(expected)


@pytest.mark.parametrize("name", trees.TREES)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_dataset_in_an_archive_is_the_same_as_unpacked(name: str, method: int, tmp_path: Path) -> None:
    trees.TREES[name](tmp_path / "data")
    dataset = load(name)
    for split in (dataset.train[-1], dataset.val or ""):
        unpacked = [dataset.read(sample) for sample in open_split(dataset, tmp_path / "data", split)[0]]
        if split == dataset.train[-1]:
            kept = unpacked
    zipped(tmp_path / "data", tmp_path / "packed" / "everything.ZIP", method=method)
    for root in (tmp_path / "packed", tmp_path / "packed" / "everything.ZIP"):
        samples, line = open_split(dataset, root, dataset.train[-1])
        assert line.startswith(f"{name} {dataset.train[-1]}: {len(kept)} of ")
        assert all(str(tmp_path / "packed" / "everything.ZIP") in sample.labels for sample in samples)
        for sample, (rgb, raw) in zip(samples, kept, strict=True):
            assert np.array_equal(dataset.read(sample)[0], rgb)
            assert np.array_equal(dataset.read(sample)[1], raw)
        assert open_split(dataset, root, dataset.val or "")[0]


def test_the_official_archives_are_read_where_they_are_put(tmp_path: Path) -> None:
    """Cityscapes' two, COCO's three, BDD100K's two, ADE20K's one, each as its site gives them."""
    city = trees.cityscapes_tree(tmp_path)
    zipped(city / "leftImg8bit", city / "leftImg8bit_trainvaltest.zip", "leftImg8bit")
    zipped(city / "gtFine", city / "gtFine_trainvaltest.zip", "gtFine")
    coco = trees.coco_stuff_tree(tmp_path)
    for split in ("train2017", "val2017"):
        zipped(coco / "images" / split, coco / "images" / f"{split}.zip", split)
    (coco / "annotations").rename(coco / "maps")
    zipped(coco / "maps", coco / "annotations" / "stuffthingmaps_trainval2017.zip")
    bdd = trees.bdd100k_tree(tmp_path)
    zipped(bdd / "images", tmp_path / "bdd100k_images_10k.zip", "bdd100k/images")
    zipped(bdd / "labels", tmp_path / "bdd100k_sem_seg_labels_trainval.zip", "bdd100k/labels")
    bdd.rmdir()
    zipped(trees.ade20k_tree(tmp_path), tmp_path / "ADEChallengeData2016.zip", "ADEChallengeData2016")
    for name, count in (("cityscapes", 2), ("coco_stuff", 2), ("bdd100k", 2), ("ade20k", 2)):
        dataset = load(name)
        samples, _ = open_training(dataset, tmp_path)
        assert len(samples) == count
        assert dataset.read(samples[0])[0].shape == (64, 96, 3)
    sample = open_training(load("cityscapes"), tmp_path)[0][0]
    assert sample.labels.startswith(str(city / "gtFine_trainvaltest.zip" / "gtFine" / "train" / "aachen"))


def test_what_is_unpacked_comes_before_the_archive_and_may_be_only_a_part(tmp_path: Path) -> None:
    camvid = trees.camvid_tree(tmp_path)
    zipped(camvid / "train", camvid / "photos.zip", "train")
    trees.camvid_tree(tmp_path)
    zipped(camvid / "valannot", camvid / "more.zip", "valannot")
    samples, _ = open_training(load("camvid"), tmp_path)
    assert Path(samples[0].image).is_file()
    sample = open_split(load("camvid"), tmp_path, "val")[0][0]
    assert (Path(sample.image).is_file(), "more.zip" in sample.labels) == (True, True)


def test_two_archives_that_hold_the_same_folder_are_refused_by_name(tmp_path: Path) -> None:
    camvid = trees.camvid_tree(tmp_path)
    zipped(camvid / "train", camvid / "train.zip", "train")
    (camvid / "train (1).zip").write_bytes((camvid / "train.zip").read_bytes())
    with pytest.raises(DatasetError, match=r"train: there are .*train \(1\)\.zip.* and .*train\.zip.*; remove"):
        open_training(load("camvid"), tmp_path)


def test_archives_above_the_root_or_in_others_are_not_looked_into(tmp_path: Path) -> None:
    pack(tmp_path / "above.zip", {"data/train/a": b"x"})
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("train/b", b"y")
    pack(tmp_path / "data" / "outer.zip", {"inner.zip": inner.getvalue()})
    root = tmp_path / "data"
    assert not exists(root, root / "train" / "a")
    assert not exists(root, root / "train" / "b")
    assert not is_dir(root / "outer.zip" / "inner.zip")
    assert locate(root, root / "train") == root / "train"


def test_a_folder_may_be_called_as_an_archive_is(tmp_path: Path) -> None:
    (tmp_path / "a.zip").mkdir()
    (tmp_path / "a.zip" / "x").write_bytes(b"7")
    assert content(tmp_path / "a.zip" / "x") == b"7"
    assert listed(tmp_path / "a.zip") == [("x", False)]


# Your own data, and photos without labels


def own_archive(root: Path, stems: str = "ab") -> Path:
    for seed, stem in enumerate(stems):
        photo(root / "raw" / "images" / f"{stem}.jpg", seed)
        grey(root / "raw" / "labels" / f"{stem}.png", labels_array([0, 1], seed))
    lines(root / "raw" / "one.txt", ["b"])
    return zipped(root / "raw", root / "a.zip")


@pytest.mark.parametrize(
    ("text", "stems"),
    [
        (YAML, "ab"),
        (YAML.replace("labels: a.zip/labels}", "labels: a.zip/labels, list: a.zip/one.txt}"), "b"),
        (YAML.replace("labels: a.zip/labels}", "labels: a.zip/labels, list: two.txt}"), "ba"),
        (YAML.replace("a.zip/", "") + "root: a.zip\n", "ab"),
        (YAML.replace("labels: a.zip/labels}", 'labels: a.zip/labels, label: "{stem}.png"}'), "ab"),
    ],
)
def test_a_yaml_file_may_name_folders_and_lists_in_an_archive(tmp_path: Path, text: str, stems: str) -> None:
    own_archive(tmp_path)
    lines(tmp_path / "two.txt", ["a.zip/images/b.jpg a.zip/labels/b.png", "a"])
    dataset = load(str(own_yaml(tmp_path, text)))
    samples, _ = open_training(dataset, tmp_path)
    assert [Path(sample.image).stem for sample in samples] == list(stems)
    assert dataset.read(samples[0])[1].max() == 1


def test_photos_without_labels_are_found_at_any_depth_of_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(["b.PNG", "n01/a.JPEG", "n01/deep/c.webp", ".hidden.jpg", "__MACOSX/._b.png"]):
        photo(tmp_path / "raw" / name, seed)
    zipped(tmp_path / "raw", tmp_path / "walks.zip")
    monkeypatch.chdir(tmp_path)
    for text in ("walks.zip", str(tmp_path / "walks.zip"), "walks.zip/"):
        dataset = load(text)
        samples, line = open_training(dataset, tmp_path)
        assert (dataset.name, line) == ("walks", "walks train: 3 images")
        assert [sample.image.partition(".zip/")[2] for sample in samples] == ["b.PNG", "n01/a.JPEG", "n01/deep/c.webp"]
        assert dataset.read(samples[1])[0].shape == (64, 96, 3)
    own = load(str(own_yaml(tmp_path, "name: deep\nsplits: {train: {images: walks.zip/n01}}\n")))
    assert len(open_training(own, tmp_path)[0]) == 2
    recipe = with_paths(resolve({"pretrain": {"datasets": ["walks.zip"]}}))
    assert recipe.pretrain.datasets == (str(tmp_path / "walks.zip"),)


def test_lists_and_links_lead_no_further_out_of_an_archive_than_out_of_a_folder(tmp_path: Path) -> None:
    site = tmp_path / "site"
    own_archive(site)
    photo(tmp_path / "c.jpg", 0)
    text = YAML.replace("labels: a.zip/labels}", "labels: a.zip/labels, list: bad.txt}")
    for line in ("a.zip/../../c.jpg a.zip/labels/a.png", f"{tmp_path}/c.jpg a.zip/labels/a.png"):
        lines(site / "bad.txt", [line])
        with pytest.raises(DatasetError, match=r"bad\.txt: line 1: .*leads out of the dataset's folder"):
            open_training(load(str(own_yaml(site, text))), site)
    lines(site / "bad.txt", ["a.zip/images a.zip/labels/a.png"])
    with pytest.raises(DatasetError, match=r"a\.zip/images: is a folder, not a file"):
        open_training(load(str(own_yaml(site, text))), site)
    (site / "a.zip").rename(tmp_path / "elsewhere.zip")
    (site / "a.zip").symlink_to(tmp_path / "elsewhere.zip")
    with pytest.raises(DatasetError, match=r"leads out of the dataset's folder .*elsewhere\.zip"):
        open_training(load(str(own_yaml(site, YAML))), site)
    assert len(open_training(load(str(own_yaml(site, YAML + "outside: true\n"))), site)[0]) == 2


def test_a_name_in_an_archive_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    own_archive(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("images/x\x1b[31m.jpg", b"")
        archive.writestr("labels/x\x1b[31m.png", b"")
    with pytest.raises(DatasetError, match="control characters in a file name") as caught:
        open_training(load(str(own_yaml(tmp_path, YAML))), tmp_path)
    assert "\x1b" not in str(caught.value)


def test_a_missing_file_or_folder_in_an_archive_is_named(tmp_path: Path) -> None:
    own_archive(tmp_path)
    assert "a.zip/images/z.jpg: the file is missing" in refusal(tmp_path / "a.zip" / "images" / "z.jpg")
    assert "expected a file, found a folder" in refusal(tmp_path / "a.zip" / "images")
    assert "the file is missing" in refusal(tmp_path / "a.zip" / "images" / "a.jpg" / "more")
    with pytest.raises(
        DatasetError, match=r"a\.zip/image: the folder is missing; .*a\.zip has images, labels, one\.txt"
    ):
        open_training(load(str(own_yaml(tmp_path, YAML.replace("a.zip/images", "a.zip/image")))), tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("images/c.jpg", b"")
    with pytest.raises(DatasetError, match=r"1 of 6 files are missing: .*a\.zip/labels/c\.png"):
        open_training(load(str(own_yaml(tmp_path, YAML))), tmp_path)


# Damaged and hostile archives


def flagged(path: Path, offset: int, value: bytes) -> Path:
    """Bytes of the first file's entry in the table of contents changed."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\1\2") + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def one(path: Path, name: str = "x", data: bytes = b"label" * 99, method: int = zipfile.ZIP_DEFLATED) -> Path:
    return pack(path, {name: data}, method)


def twice(path: Path) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of a duplicate name
        archive.writestr("x", b"1")
        archive.writestr("./x", b"2")
    return path


def linked(path: Path) -> Path:
    info = zipfile.ZipInfo("x")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/hosts")
    return path


def overlapping(path: Path) -> Path:
    pack(path, {"x": b"1" * 500, "y": b"1" * 500}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[second + 42 : second + 46] = struct.pack("<I", 20)  # where its bytes begin
    path.write_bytes(data)
    return path


def cut(path: Path, share: float) -> Path:
    one(path, data=os.urandom(5000))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: flagged(one(path), 8, b"\1\0"), "'x' in it is encrypted; unpack it with its password"),
        (lambda path: one(path, method=zipfile.ZIP_BZIP2), "'x' in it is compressed by method 12"),
        (lambda path: one(path, "/x"), "'/x' in it leads out of the archive"),
        (lambda path: one(path, "a/../../x"), "leads out of the archive"),
        (lambda path: one(path, "C:/x"), "is not written with /"),
        (lambda path: one(path, "a\\x"), "is not written with /"),
        (linked, "'x' in it is a link or device"),
        (twice, "'./x' is in it twice"),
        (lambda path: pack(path, {"x": b"1", "x/y": b"2"}), "'x/y' is in it twice"),
        (lambda path: pack(path, {"x/y": b"2", "x": b"1"}), "'x' is in it twice"),
        (overlapping, "files in it overlap"),
        (lambda path: flagged(one(path, method=zipfile.ZIP_STORED), 20, struct.pack("<I", 7)), "two different sizes"),
        (lambda path: cut(path, 0.5), "damaged or no zip archive .*is the download complete"),
        (lambda path: cut(path, 0.0), "damaged or no zip archive"),
        (lambda path: [path.write_text("<!doctype html>"), path][1], "damaged or no zip archive"),
    ],
)
def test_a_damaged_or_hostile_archive_is_refused_in_one_line_and_nowhere_entered(
    tmp_path: Path, make: Callable[[Path], Path], says: str
) -> None:
    path = make(tmp_path / "a.zip")
    assert refusal(path / "x").startswith(f"{path}")
    for look in (lambda: content(path / "x"), lambda: is_dir(path), lambda: is_file(path / "x"), lambda: listed(path)):
        with pytest.raises(DatasetError, match=says):
            look()
    with pytest.raises(DatasetError, match=says):
        load(str(path))
    with pytest.raises(DatasetError, match=says) as caught:
        open_training(load("camvid"), tmp_path)
    assert str(caught.value).startswith("camvid: not found"), "an archive beside is told of, but stops nobody"
    assert stamp(str(path / "x")) == (-1, -1, "")


def test_a_bomb_unpacks_to_no_more_than_it_says_and_a_large_claim_to_nothing(tmp_path: Path) -> None:
    path = one(tmp_path / "a.zip", data=bytes(50_000_000))
    assert path.stat().st_size < 60_000
    with pytest.raises(DatasetError, match=r"x: 50000000 bytes; a file has at most 1000"):
        read_bytes(str(path / "x"), "file", 1000)
    flagged(path, 24, struct.pack("<I", 1000))
    assert "checksum in the zip archive is wrong" in refusal(path / "x")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_is_noticed_by_the_checksum_or_changes_nothing(tmp_path: Path, method: int) -> None:
    data = bytes(np.random.default_rng(0).integers(0, 9, 200, dtype=np.uint8))
    path = one(tmp_path / "a.zip", data=data, method=method)
    whole = path.read_bytes()
    told, places = [], range(31, whole.index(b"PK\1\2"))
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        os.utime(path, ns=(place, place))  # the table of contents is read anew
        try:
            assert content(path / "x") == data  # deflate has bits that mean nothing
        except DatasetError as error:
            told.append(str(error))
    assert all("damaged" in text for text in told)
    assert len(told) >= len(places) - (method == zipfile.ZIP_DEFLATED)


def test_an_archive_that_changes_in_use_is_read_anew_and_never_by_old_places(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"x": b"1" * 100, "y": b"2" * 100})
    assert content(path / "y") == b"2" * 100
    pack(path, {"y": b"3" * 100})
    os.utime(path, ns=(5, 5))
    assert content(path / "y") == b"3" * 100
    assert "missing" in refusal(path / "x")
    held = zips.archive(str(path))
    pack(path, {"y": b"4" * 100})
    os.utime(path, ns=(6, 6))
    with pytest.raises(zips.Unusable, match="was changed while it was in use"):
        zips.read(held, held.files[""]["y"], "file", 1000)


# Processes


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_threads_and_processes_read_one_archive_at_once_without_disturbing_each_other(
    tmp_path: Path, start: str
) -> None:
    rng = np.random.default_rng(0)
    entries = {f"{i % 7}/{i}.png": rng.bytes(int(rng.integers(1, 20_000))) for i in range(150)}
    path = pack(tmp_path / "a.zip", entries)
    calls = [(str(path / name), "file") for name in entries] * 3
    expected = list(entries.values()) * 3
    assert [read_bytes(*call) for call in calls] == expected
    with ThreadPoolExecutor(4) as threads, multiprocessing.get_context(start).Pool(2) as pool:
        others = pool.starmap_async(read_bytes, calls, chunksize=1)
        assert list(threads.map(lambda call: read_bytes(*call), calls)) == expected
        assert others.get(60) == expected


# The check


def test_the_fingerprint_knows_the_archives_size_and_time_and_each_files_checksum(tmp_path: Path) -> None:
    own_archive(tmp_path)
    dataset = load(str(own_yaml(tmp_path, YAML)))
    samples, _ = open_training(dataset, tmp_path)
    path = tmp_path / "a.zip"
    first = fingerprint(dataset, samples, "train")
    assert fingerprint(dataset, samples, "train") == first
    before = os.stat(path).st_mtime_ns
    os.utime(path, ns=(before, before + 1))
    assert fingerprint(dataset, samples, "train") != first
    os.utime(path, ns=(before, before))
    assert fingerprint(dataset, samples, "train") == first
    data = path.read_bytes()
    crc = struct.pack("<I", int(stamp(samples[0].labels).inside.split()[1], 16))
    path.write_bytes(data.replace(crc, b"\1\2\3\4"))
    os.utime(path, ns=(before, before))
    zips._archive.cache_clear()  # another process would see it at once
    assert fingerprint(dataset, samples, "train") != first


def test_the_check_reads_an_archive_in_processes_and_names_what_is_wrong_in_it(tmp_path: Path) -> None:
    own_archive(tmp_path, "abcdefghij")
    values = labels_array([0, 1], 0)
    values[:2] = 9
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.write(photo(tmp_path / "z.jpg", 77), "images/z.jpg")
        archive.write(grey(tmp_path / "z.png", values), "labels/z.png")
    (report,) = run_check([str(own_yaml(tmp_path, YAML))], tmp_path, 2, None, True)
    (problem,) = [problem for problem in report.problems if problem.error]
    assert (report.images, problem.kind) == (11, "unknown_values")
    assert problem.files == (f"{tmp_path}/a.zip/labels/z.png: 9 (192 pixels)",)


def test_a_run_on_an_archive_learns_what_a_run_on_the_folder_does(tmp_path: Path) -> None:
    losses = []
    for root in (tmp_path / "folder", tmp_path / "zip"):
        camvid = trees.camvid_tree(root)
        if root.name == "zip":
            zipped(camvid, root / "CamVid.zip", "CamVid")
        recipe = recipe_with(root, ["camvid"], "multi_dataset")
        out = run_pretraining(Request(layers=(as_layer(recipe),), out=tmp_path / f"run-{root.name}", quiet=True))
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert losses[0] == losses[1] != []
