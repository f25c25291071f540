"""Files that were made to harm: nothing runs, nothing outside is opened, nothing hangs, memory stays bounded.

`tests/stress/fuzz.py` has the hostile files; run it with a larger count for more than the short version here.
"""

import ast
import os
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mdp
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Sample, open_split, open_training, read_pair
from mdp.io.datasets.own import borders, description
from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.files import decoding
from mdp.io.files.label_maps import read_labels
from mdp.io.files.matlab import read_mat
from mdp.io.files.photos import read_rgb
from mdp.io.files.reading import has_controls, printable, read_bytes, shown
from tests import preloaded
from tests.conftest import ROOT
from tests.stress import fuzz
from tests.trees import grey, labels_array, lines, own_yaml, photo, voc_tree

PACKAGE = Path(mdp.__file__).parent
TEXT = """
name: site
splits: {train: {images: images, labels: labels}}
classes: {0: road, 1: car}
"""
LISTED = TEXT.replace("labels: labels", "labels: labels, list: list.txt")
PHOTOS = "name: walks\nsplits: {train: {images: photos}}\n"


def site(root: Path, text: str = TEXT) -> Path:
    """A dataset of two images.  Returns its YAML file."""
    for seed, stem in enumerate(("a", "b")):
        photo(root / "images" / f"{stem}.jpg", seed)
        grey(root / "labels" / f"{stem}.png", labels_array([0, 1], seed))
    return own_yaml(root, text)


def refusal(yaml: Path) -> str:
    """The message with which the dataset is refused when it is opened, before any image is read."""
    begun = time.process_time()
    with pytest.raises(DatasetError) as caught:
        open_training(load(str(yaml)), yaml.parent)
    assert time.process_time() - begun < 5
    return str(caught.value)


def stems(yaml: Path) -> list[str]:
    samples, _ = open_training(load(str(yaml)), yaml.parent)
    for sample in samples:
        load(str(yaml)).read(sample)
    return [Path(sample.image).stem for sample in samples]


# The fuzzer


def test_bent_and_hostile_files_are_refused_or_read_as_they_were() -> None:
    done = preloaded.run([str(ROOT / "tests" / "stress" / "fuzz.py"), "--count", "300", "--seed", "1"], ROOT)
    assert done.code == 0, done.out + done.err
    assert "\n0 failures" in done.out


@pytest.mark.parametrize(
    ("module", "function", "kind", "column"),
    [
        (decoding, "check_png", "labels", "wrong"),
        (borders, "refuse_strays", "splits", "outside"),
        (description, "refuse_unknown", "yaml", "wrong"),
        (borders, "refuse_way_out", "splits", "outside"),
    ],
)
def test_the_fuzzer_notices_when_a_check_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: object, function: str, kind: str,
    column: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, function, lambda *_: None)
    if function == "refuse_way_out":  # a path is checked twice, as written and as it is
        monkeypatch.setattr(borders, "refuse_strays", lambda *_: None)
    rows = fuzz.fuzz([kind], 120, 0, 20, None)
    assert sum(counts[column] for counts in rows.values()) > 0
    assert f"{column}: {kind}" in capsys.readouterr().err


# Paths


@pytest.mark.parametrize("name", list(fuzz.hostile_lists(Path("/"))))
def test_a_list_that_leads_elsewhere_or_to_no_file_is_refused_with_file_and_line(tmp_path: Path, name: str) -> None:
    cases = list(fuzz.split_cases(tmp_path))
    case = next(case for case in cases if case.name == f"hostile: {name}")
    case.path.write_bytes(b"b\n\n" + case.data if name in ("link by id", "dots") else b"\n\n" + case.data)
    begun = time.process_time()
    with pytest.raises(DatasetError) as caught:
        case.read(case.path)
    assert "list.txt: line 3: " in str(caught.value)
    assert not has_controls(str(caught.value))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("place", ["../private", "/etc", "images/../..", "..", "..\\\\images", "C:images"])
@pytest.mark.parametrize("key", ["images", "labels", "label", "list", "root"])
def test_a_path_of_the_yaml_file_that_leads_elsewhere_is_refused_with_its_key(
    tmp_path: Path, key: str, place: str
) -> None:
    value = f'"{place}/{{stem}}.png"' if key == "label" else f'"{place}"'
    text = TEXT.replace("{images:", f"{{{key}: {value}, images:") if key in ("label", "list") else TEXT
    text = text.replace(f" {key}: {key}", f" {key}: {value}").replace(f"{{{key}: {key}", f"{{{key}: {value}")
    text += f"root: {value}\n" if key == "root" else ""
    message = refusal(site(tmp_path / "site", text))
    assert f"site_a.yaml: {'root' if key == 'root' else f'splits.train.{key}'}: " in message
    assert ("Windows" if "\\" in place or ":" in place else "outside: true") in message


def test_a_dataset_may_say_that_its_files_lie_outside(tmp_path: Path) -> None:
    site(tmp_path / "elsewhere")
    text = TEXT.replace("images: images", "images: ../elsewhere/images").replace(
        "labels: labels", f"labels: {tmp_path}/elsewhere/labels"
    )
    yaml = own_yaml(tmp_path / "site", text)
    assert "outside: true" in refusal(yaml)
    assert stems(own_yaml(tmp_path / "site", text + "outside: true\n")) == ["a", "b"]
    with pytest.raises(RecipeError, match="outside: expected true or false, got 'yes'"):
        load(str(own_yaml(tmp_path / "site", text + "outside: yes\n")))


@pytest.mark.parametrize("text", [TEXT, LISTED])
@pytest.mark.parametrize("entry", ["images", "images/a.jpg", "labels/b.png"])
def test_a_link_out_of_the_dataset_is_refused_unless_it_says_so(tmp_path: Path, entry: str, text: str) -> None:
    yaml = site(tmp_path / "site", text)
    lines(tmp_path / "site" / "list.txt", ["a", "b"])
    moved = tmp_path / Path(entry).name
    (tmp_path / "site" / entry).rename(moved)
    (tmp_path / "site" / entry).symlink_to(moved)
    message = refusal(yaml)
    assert f"{entry}: leads out of the dataset's folder {tmp_path / 'site'}, to {moved}" in message
    assert ("list.txt: line " in message) == (text == LISTED)
    assert stems(site_with_outside(yaml)) == ["a", "b"]


def site_with_outside(yaml: Path) -> Path:
    yaml.write_text(yaml.read_text() + "\noutside: true\n")
    return yaml


def test_links_within_the_dataset_and_a_linked_dataset_are_followed(tmp_path: Path) -> None:
    site(tmp_path / "disk" / "site", TEXT)
    home = tmp_path / "disk" / "site"
    (home / "images").rename(home / "originals")
    (home / "images").symlink_to("originals")
    (home / "labels" / "b.png").rename(home / "b_label.png")
    (home / "labels" / "b.png").symlink_to("../b_label.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "site").symlink_to(home)
    yaml = own_yaml(tmp_path / "descriptions", TEXT + "root: site\n")
    samples, _ = open_training(load(str(yaml)), tmp_path / "data")
    assert [load(str(yaml)).read(sample)[0].shape for sample in samples] == [(64, 96, 3)] * 2


@pytest.mark.parametrize("kind", ["pipe", "folder", "circle", "missing"])
@pytest.mark.parametrize("text", [TEXT, LISTED, PHOTOS])
def test_what_stands_in_the_place_of_a_photo_is_refused_when_the_dataset_is_opened(
    tmp_path: Path, kind: str, text: str
) -> None:
    yaml = site(tmp_path, text)
    lines(tmp_path / "list.txt", ["a", "b"])
    (tmp_path / "images").rename(tmp_path / "photos" if text == PHOTOS else tmp_path / "images")
    path = tmp_path / ("photos" if text == PHOTOS else "images") / "b.jpg"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "circle" else tmp_path / "images" / "nothing.jpg")
    if kind == "folder" and text == PHOTOS:
        assert stems(yaml) == ["a"]  # photos are looked for at any depth
        return
    says = {"pipe": "device or pipe", "folder": "is a folder", "circle": "symbolic links", "missing": "No such file"}
    assert f"b.jpg: {'' if kind in ('pipe', 'folder') else 'cannot be read: '}" in (message := refusal(yaml))
    assert says[kind] in message


@pytest.mark.parametrize("kind", ["pipe", "folder", "circle"])
def test_a_list_or_yaml_file_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    yaml = site(tmp_path, LISTED)
    for path in (tmp_path / "list.txt", tmp_path / "bad.yaml"):
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(path)
    assert "list.txt" in refusal(yaml)
    with pytest.raises(RecipeError, match=r"bad\.yaml"):
        load(str(tmp_path / "bad.yaml"))


def test_photos_are_found_once_through_links_in_a_circle_and_never_past_the_border(tmp_path: Path) -> None:
    photo(tmp_path / "site" / "photos" / "deep" / "a.jpg", 0)
    (tmp_path / "site" / "photos" / "deep" / "again").symlink_to("..")
    (tmp_path / "site" / "photos" / "twin").symlink_to("deep")
    yaml = own_yaml(tmp_path / "site", PHOTOS)
    assert stems(yaml) == ["a"]
    photo(tmp_path / "elsewhere" / "b.jpg", 1)
    (tmp_path / "site" / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    assert "photos/more: leads out of the dataset's folder" in refusal(yaml)
    assert stems(site_with_outside(yaml)) == ["b", "a"] or stems(yaml) == ["a", "b"]
    folder = load(str(tmp_path / "site" / "photos"))
    assert len(open_split(folder, tmp_path, "train")[0]) == 2  # who names a folder means what it shows


@pytest.mark.parametrize("line", ["../../../private", "/etc/hosts", "a\\b", ".."])
def test_a_path_in_the_list_of_a_built_in_dataset_is_refused_with_file_and_line(tmp_path: Path, line: str) -> None:
    voc = voc_tree(tmp_path)
    lines(voc / "ImageSets" / "Segmentation" / "val.txt", ["2007_000004", line])
    with pytest.raises(DatasetError, match=r"val\.txt: line 2: expected an id"):
        open_split(load("voc"), tmp_path, "val")


def test_a_long_list_with_a_line_twice_is_refused_within_seconds(tmp_path: Path) -> None:
    yaml = site(tmp_path, LISTED)
    lines(tmp_path / "list.txt", [*(f"photo_{i}" for i in range(200_000)), "photo_199999"])
    assert "1 lines are there twice, such as 'photo_199999'" in refusal(yaml)


@pytest.mark.parametrize("text", ["a" * 5000, "a/" * 2000, "a\0b"])
def test_a_name_that_no_file_can_have_is_missing_and_no_traceback(tmp_path: Path, text: str) -> None:
    with pytest.raises(MdpError):
        load(text)
    with pytest.raises(MdpError):
        load(text + ".yaml")
    with pytest.raises(MdpError):
        read_pair(Sample(text, text, "site"))


# Memory and time

BOMBS = """
import resource, sys, time
from pathlib import Path
from tests.stress import fuzz
from mdp.io.errors import DatasetError
from mdp.io.files.label_maps import read_labels
from mdp.io.files.photos import read_rgb
fuzz.limit_memory(700)
files = {name: (suffix, data) for name, (suffix, data) in fuzz.image_bombs().items()}
files |= {name: (".mat", data) for name, data in fuzz.mat_bombs().items()}
for name, (suffix, data) in files.items():
    path = Path(sys.argv[1]) / f"bomb{suffix}"
    path.write_bytes(data)
    for read in (read_rgb, read_labels):
        begun = time.process_time()
        try:
            read(str(path))
        except DatasetError:
            pass
        else:
            sys.exit(f"{name} was read")
        if time.process_time() - begun > 3:
            sys.exit(f"{name} took {time.process_time() - begun:.1f} s")
print(len(files))
"""


def test_bombs_are_refused_in_700_mib_and_three_seconds_each(tmp_path: Path) -> None:
    done = preloaded.run(["-c", BOMBS, str(tmp_path)], ROOT)
    assert done.code == 0, done.err
    assert int(done.out) >= 16


image_bombs = cache(fuzz.image_bombs)


@pytest.mark.parametrize("name", ["tiff tile", "tiff counts", "webp canvas", "jpeg scans"])
def test_a_bomb_is_recognised_by_its_header(tmp_path: Path, name: str) -> None:
    suffix, data = image_bombs()[name]
    says = {
        "tiff tile": "tiles of 32768",
        "tiff counts": "values",
        "webp canvas": "16383 x 16383",
        "jpeg scans": "scans",
    }
    (tmp_path / f"bomb{suffix}").write_bytes(data)
    with pytest.raises(DatasetError, match=says[name]):
        read_rgb(str(tmp_path / f"bomb{suffix}"))


def test_a_progressive_jpeg_with_a_film_behind_it_is_no_bomb(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 0)
    data = fuzz.encoded(Image.open(tmp_path / "a.png"), "JPEG", progressive=True)
    (tmp_path / "a.jpg").write_bytes(data + b"\xff\xda\0\0" * 500)
    assert read_rgb(str(tmp_path / "a.jpg")).shape == (64, 96, 3)


def test_bytes_that_no_pixel_needs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(fuzz.png(np.zeros((2, 2), dtype=np.uint8), 8, after=fuzz.chunk(b"eXIf", bytes(2**26))))
    with pytest.raises(DatasetError, match="too many for 2 x 2 pixels"):
        read_rgb(str(path))


def test_a_matlab_file_says_how_far_it_would_unpack(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    bombs = fuzz.mat_bombs()
    for name, says in {"mat unpacks too far": "too large", "mat of 200,000 cells": "more than 100000 elements"}.items():
        path.write_bytes(bombs[name])
        with pytest.raises(DatasetError, match=says):
            read_mat(str(path))


# Labels


def test_every_single_flipped_bit_of_a_label_map_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for kind in (0, 3):
        data = fuzz.png(np.arange(6).reshape(2, 3), 4, kind)
        path.write_bytes(data)
        assert read_labels(str(path)).tolist() == [[0, 1, 2], [3, 4, 5]]
        for bit in range(8 * len(data)):
            bent = bytearray(data)
            bent[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bent)
            with pytest.raises(DatasetError):
                read_labels(str(path))


def test_a_png_whose_depth_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    """Pillow takes the last header, wherever it is; grey of 4 bits would come out 17 times too large."""
    values = np.array([[0, 1], [2, 3]])
    other = fuzz.chunk(b"IHDR", fuzz.struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
    path = tmp_path / "a.png"
    for first, after in ((other, b""), (fuzz.chunk(b"tEXt", b"a\0" + bytes(11)), b""), (b"", other)):
        path.write_bytes(fuzz.png(values, 4, first=first, after=after))
        with pytest.raises(DatasetError):
            read_labels(str(path))


# Code and messages


@pytest.mark.parametrize("name", list(fuzz.hostile_yaml(Path("/"))))
def test_a_hostile_yaml_file_is_refused_and_runs_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(fuzz.hostile_yaml(tmp_path)[name])
    begun = time.process_time()
    with pytest.raises(MdpError) as caught:
        load(str(path))
    assert time.process_time() - begun < 2
    assert "bad.yaml" in str(caught.value)
    assert not has_controls(str(caught.value))
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "ran").exists()


@cache
def calls() -> list[tuple[str, str, ast.Call]]:
    """Every call in the package: file, what is called, the call."""
    return [
        (path.name, ast.unparse(node.func), node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_no_line_of_the_package_can_run_what_a_file_says() -> None:
    forbidden = {
        "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads",
        "marshal.loads", "yaml.unsafe_load", "yaml.full_load", "numpy.load", "shelve.open", "runpy.run_path",
    }  # fmt: skip
    switches = {"shell", "allow_pickle", "weights_only"}
    for file, name, call in calls():
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg in switches}
        assert name not in forbidden, f"{file}: {name}"
        assert given.get("shell") != "True", f"{file}: {name}"
        assert given.get("allow_pickle") != "True", f"{file}: {name}"
        if name == "yaml.load":
            assert [ast.unparse(argument) for argument in call.args[1:]] in (["_Loader"], ["_FastLoader"]), file
        if name == "np.load":
            assert given.get("allow_pickle") == "False", file
        if name == "torch.load":
            assert given.get("weights_only") == "True", file


def test_every_image_is_opened_with_a_list_of_formats() -> None:
    opened = [(file, call) for file, name, call in calls() if name.endswith("Image.open")]
    assert opened
    for file, call in opened:
        assert "formats" in {keyword.arg for keyword in call.keywords}, file


@pytest.mark.parametrize("suffix", [".eps", ".jp2", ".ico", ".tga"])
def test_formats_that_datasets_do_not_use_are_not_decoded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (16, 16)).save(path)
    for read in (read_rgb, read_labels):
        with pytest.raises(DatasetError, match="not an image"):
            read(str(path.rename(tmp_path / "a.png")) if path.exists() else str(tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["a\x1b[2J.jpg", "a\n.jpg", "a\x9b31m.jpg", "a\u202egpj.jpg"])
@pytest.mark.parametrize("text", [TEXT, PHOTOS])
def test_a_file_name_with_control_characters_is_refused_and_not_obeyed(tmp_path: Path, name: str, text: str) -> None:
    yaml = site(tmp_path, text)
    (tmp_path / "photos").symlink_to("images")
    photo(tmp_path / "images" / name, 0)
    grey(tmp_path / "labels" / f"{name[:-4]}.png", labels_array([0, 1], 0))
    message = refusal(yaml)
    assert "control characters in a file name" in message
    assert not has_controls(message)


def test_a_name_with_bytes_that_are_no_text_is_read_and_printed(tmp_path: Path) -> None:
    stem = os.fsdecode(b"caf\xe9")
    yaml = site(tmp_path)
    photo(tmp_path / "b.jpg", 0).rename(tmp_path / "images" / f"{stem}.jpg")
    label = grey(tmp_path / "b.png", labels_array([0, 1], 0)).rename(tmp_path / "labels" / f"{stem}.png")
    assert stems(yaml) == ["a", "b", stem]
    label.write_bytes(label.read_bytes()[:-30])
    with pytest.raises(DatasetError) as caught:
        stems(yaml)
    assert "caf\\xe9.png: damaged" in str(caught.value).encode("utf-8").decode()


def test_the_name_of_a_chunk_or_matrix_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    bent = bytearray(fuzz.png(np.zeros((2, 2), dtype=np.uint8), 8, after=fuzz.chunk(b"\x1b[2J", b"abc")))
    bent[bent.index(b"abc")] ^= 1
    path.write_bytes(bent)
    with pytest.raises(DatasetError) as caught:
        read_labels(str(path))
    assert not has_controls(str(caught.value))


@pytest.mark.parametrize("name", ["two\\nlines", "tab\\there"])
def test_a_class_name_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"classes\.0: expected a name on one line"):
        load(str(site(tmp_path, TEXT.replace("0: road", f'0: "{name}"'))))


def test_what_is_shown_is_short_and_on_one_line() -> None:
    assert printable("plain é 木 name.png") == "plain é 木 name.png"
    assert printable("\x1b]0;x\x07\udcff\ud800") == "\\x1b]0;x\\x07\\xff\\ud800"
    assert shown("x" * 1000) == f"'{'x' * 79}... (1002 characters)"
    assert not has_controls(shown({"a": "\x1b\n"}))


def test_no_more_is_read_than_the_limit_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(11))
    assert read_bytes(str(tmp_path / "a"), "file", 11) == bytes(11)
    with pytest.raises(RecipeError, match="11 bytes; a file has at most 10"):
        read_bytes(str(tmp_path / "a"), "file", 10, RecipeError)
    with pytest.raises(DatasetError, match="device or pipe"):
        read_bytes("/dev/zero", "file")
