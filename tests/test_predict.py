"""`mdp predict`: what is made of photos, where it is put, and that nothing is lost or replaced on the way."""

import errno
import hashlib
import io
import json
import os
import signal
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from mdp.cli import cli
from mdp.core.labels import LabelSpace
from mdp.io.datasets import ade20k, camvid, load
from mdp.io.datasets._dataset import open_split
from mdp.io.datasets.own import load_own
from mdp.io.errors import DatasetError, MdpError, Preempted, RecipeError, ResourceError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.photos import read_rgb
from mdp.io.inference import folder as inference_folder
from mdp.io.inference import job as inference_job
from mdp.io.inference.asked import Wanted
from mdp.io.inference.folder import labels_png, raw_values, targets
from mdp.io.inference.job import run_predictions
from mdp.io.inference.photos import Photo
from mdp.io.inference.predict import predict
from mdp.io.journal.counter import Counter
from mdp.io.pictures.class_colors import colors_of_space
from mdp.io.run.opened import open_segmentor
from mdp.photo_rule import PhotoRule
from tests.small_runs import PlainRuns, request

CLASSES = 8  # of shapes-target


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, plain_runs: PlainRuns) -> Path:
    """A fine-tuned segmentor."""
    return plain_runs("finetune", tmp_path_factory.mktemp("run") / "tuned")


@pytest.fixture
def here(in_an_empty_folder: None, run: Path) -> Path:
    return Path.cwd()


def pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(name: str, height: int = 40, width: int = 50, seed: int = 0, **options: Any) -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(height, width, seed)).save(name, **options)
    return Path(name)


def predicted(run: Path, *names: str, out: str = "out", quiet: bool = True, **wanted: Any) -> dict[str, Any]:
    changes = [("run.on_bad_sample", wanted.pop("on_bad_sample", "stop")), *wanted.pop("changes", [])]
    asked = request(*changes, init=str(run), out=Path(out), quiet=quiet)
    return run_predictions(asked, Wanted(photos=names, **wanted))


def index(out: str = "out") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(out, "predictions.json").read_text())
    return found


def values(path: str | Path) -> NDArray[np.integer]:
    with Image.open(path) as image:
        return np.array(image)


def files(folder: str = "out") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


# What is made


def test_the_label_png_holds_what_the_network_says(here: Path, run: Path) -> None:
    path = photo("in/a/x.png")
    predicted(run, "in")
    opened = open_segmentor(str(run), "last")
    recipe = inference_job.evaluation_recipe(request(init=str(run)), opened.record)
    network = inference_job.trained_segmentor(opened, recipe, torch.device("cpu"))
    image = torch.from_numpy(read_rgb(str(path))).permute(2, 0, 1)
    expected = predict(network.eval(), image, inference_job.inference_settings(recipe), torch.device("cpu"))
    assert len(expected.unique()) > 1  # or the test says little
    assert values("out/labels/a/x.png").tolist() == expected.tolist()


def test_predictions_of_a_split_are_those_that_it_is_scored_with(here: Path, run: Path) -> None:
    _, folder = run_evaluation(request(init=str(run), out=Path("eval")), "last", keep=True)
    dataset = load("shapes-target")
    for i, sample in enumerate(open_split(dataset, Path(), "val")[0][:5]):
        Path("in").mkdir(exist_ok=True)
        Image.fromarray(dataset.read(sample)[0]).save(f"in/{i:05d}.png")
    predicted(run, "in")
    for i in range(5):
        assert (values(f"out/labels/{i:05d}.png") == values(folder / "predictions" / f"{i:05d}.png")).all()


def test_label_pngs_are_palette_files_in_the_datasets_colours(here: Path, run: Path) -> None:
    photo("x.png")
    predicted(run, "x.png")
    (space,) = open_segmentor(str(run), "last").record.labels
    with Image.open("out/labels/x.png") as image:
        assert image.mode == "P"
        assert image.size == (50, 40)
        palette = image.getpalette()
        assert palette is not None
        assert palette[: 3 * CLASSES] == [channel for color in space.colors for channel in color]
    rows = Path("out/classes.csv").read_text().splitlines()
    assert rows[0] == "value,name,red,green,blue"
    assert rows[3] == ",".join(map(str, (2, space.classes[2], *space.colors[2])))
    assert len(rows) == 1 + CLASSES


def test_an_overlay_is_half_photo_half_colour(here: Path, run: Path) -> None:
    photo("x.png")
    predicted(run, "x.png", overlays=True)
    colors = np.array(open_segmentor(str(run), "last").record.labels[0].colors)
    expected = (0.5 * pixels(40, 50) + 0.5 * colors[values("out/labels/x.png")]).astype(np.uint8)
    assert (values("out/overlays/x.png") == expected).all()


def test_an_overlay_in_bands_is_that_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    space = LabelSpace(name="a", classes=("b", "c"), colors=((9, 8, 7), (200, 100, 0)))
    classes = np.random.default_rng(1).integers(0, 2, (40, 50))
    whole = inference_folder.overlay_png(pixels(40, 50), classes, space)
    monkeypatch.setattr(inference_folder, "_BAND", 120)  # two rows and a bit
    assert inference_folder.overlay_png(pixels(40, 50), classes, space) == whole


def test_probabilities_are_float16_sum_to_one_and_favour_the_labels(here: Path, run: Path) -> None:
    photo("in/x.png")
    predicted(run, "in", out="plain")
    predicted(run, "in", probabilities=True)
    found = np.load("out/probabilities/x.npy", allow_pickle=False)
    assert found.dtype == np.float16
    assert found.shape == (CLASSES, 40, 50)
    assert np.abs(found.astype(np.float64).sum(0) - 1).max() < 3e-3
    labels = values("out/labels/x.png")
    assert (np.take_along_axis(found, labels[None].astype(int), 0)[0] == found.max(0)).all()
    assert (labels == values("plain/labels/x.png")).mean() > 0.999


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (700, 1), (3, 900), (33, 31)])
def test_photos_of_any_shape_give_labels_of_that_shape(
    here: Path, run: Path, mode: str, height: int, width: int
) -> None:
    photo("x.png", height, width)
    predicted(run, "x.png", overlays=True, probabilities=True, changes=[("eval.mode", mode)])
    assert values("out/labels/x.png").shape == (height, width)
    assert values("out/overlays/x.png").shape == (height, width, 3)
    assert np.load("out/probabilities/x.npy").shape == (CLASSES, height, width)


def test_photos_of_any_kind_are_read(here: Path, run: Path) -> None:
    image = Image.fromarray(pixels(40, 50))
    Path("in").mkdir()
    for name, mode in (("grey.jpg", "L"), ("rgba.png", "RGBA"), ("cmyk.jpg", "CMYK"), ("p.png", "P"), ("bit.png", "1")):
        image.convert(mode).save(f"in/{name}")
    image.save("in/moving.webp", save_all=True, append_images=[Image.new("RGB", (50, 40))])
    image.save("in/UPPER.JPG")
    image.save("in/a.ppm")
    assert predicted(run, "in")["predicted"] == 8
    assert {values(path).shape for path in Path("out/labels").iterdir()} == {(40, 50)}


def test_an_exif_rotation_is_told_and_not_applied(here: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = Image.Exif()
    turned[274] = 6
    photo("in/turned.jpg", exif=turned)
    photo("in/upright.jpg")
    assert predicted(run, "in", quiet=False)["exif_rotated"] == 1
    assert "note: 1 photo with an EXIF rotation, which is not applied" in capsys.readouterr().err
    assert (values("out/labels/turned.png") == values("out/labels/upright.png")).all()


def test_a_geotiffs_labels_lie_where_the_photo_does(here: Path, run: Path) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    tags = {33550: (12, (0.5, 0.5, 0.0)), 33922: (12, (0.0, 0.0, 0.0, 500000.0, 5300000.25, 0.0)),
            34735: (3, (1, 1, 0, 1, 3072, 0, 1, 32633)), 34737: (2, "WGS 84 / UTM zone 33N|"),
            42113: (2, "0")}  # fmt: skip
    for tag, (kind, content) in tags.items():
        info.tagtype[tag] = kind
        info[tag] = content
    photo("photos/nowhere.tif")
    Image.fromarray(pixels(40, 50)).save("photos/there.tif", tiffinfo=info)
    predicted(run, "photos")
    assert files("out/labels") == ["nowhere.png", "there.png", "there.tif"]
    with Image.open("out/labels/there.tif") as written:
        assert np.array_equal(np.array(written), values("out/labels/there.png"))
        found = {tag: written.tag_v2.get(tag) for tag in tags}  # type: ignore[attr-defined]
    assert found == {**{tag: content for tag, (_, content) in tags.items()}, 42113: None}
    predicted(run, "photos", existing="overwrite")


def test_odd_names_come_back_as_they_were(here: Path, run: Path) -> None:
    names = ["中文 e\u0301.jpg", "x" * 251 + ".jpg", "-dash.jpg", "x[1].jpg", "a.b.jpg", os.fsdecode(b"\xff.jpg")]
    for name in names:
        photo(f"in/{name}")
    predicted(run, "in")
    assert sorted(os.listdir("out/labels")) == sorted(Path(name).stem + ".png" for name in names)
    assert sorted(Path(line["photo"]).name for line in index()["files"]) == sorted(names)


# Raw values


def test_raw_values_are_read_back_as_the_same_classes() -> None:
    classes = np.array([[0, 149], [7, 0]])
    raws = raw_values(ade20k.LABELS)
    png = labels_png(classes, ade20k.LABELS, raws)
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "P"
        assert np.array(image).tolist() == [[1, 150], [8, 1]]
        assert ade20k.LABELS.to_classes(np.array(image)).tolist() == classes.tolist()
        assert np.array(image.convert("RGB"))[0, 1].tolist() == list(ade20k.LABELS.colors[149])


def space(
    lookup: dict[int, int] | None, classes: tuple[str, ...] = ("road", "car"), ignore: int | None = 255
) -> LabelSpace:
    return LabelSpace(name="site", classes=classes, lookup=lookup, ignore_index=ignore)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (camvid.LABELS, "label maps of camvid hold class numbers already"),
        (space({1: 0, 2: 1, 7: 1}), "'car' of site stands for 2, 7; there is no one way back"),
        (space({1: 0}), "'car' of site stands for no value"),
        (space({1: 0, 255: 1}), "'car' of site stands for no value"),
    ],
)
def test_raw_values_without_one_way_back_are_refused(labels: LabelSpace, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        raw_values(labels)


def test_colours_are_no_raw_values(tmp_path: Path) -> None:
    text = 'name: site\nsplits: {val: {images: a, labels: b}}\nclasses: {0: {name: sky, colors: ["#010203"]}}\n'
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(DatasetError, match="'sky' of site is a colour"):
        raw_values(load_own(tmp_path / "site.yaml").labels)


def test_above_255_classes_or_raw_values_labels_have_16_bits() -> None:
    many = LabelSpace(name="many", classes=tuple(map(str, range(300))))
    for labels, raws, expected in ((many, None, [[299, 1]]), (space({999: 0, 4: 1}), (999, 4), [[999, 4]])):
        classes = np.array([[299, 1]]) if raws is None else np.array([[0, 1]])
        with Image.open(io.BytesIO(labels_png(classes, labels, raws))) as image:
            assert image.mode == "I;16"
            assert np.array(image).tolist() == expected


def test_a_dataset_without_colours_gets_vocs() -> None:
    assert colors_of_space(space(None)) == voc_colormap(2)


# Nothing is lost or replaced


def test_two_photos_that_would_share_a_file_are_named_before_anything_is_written(here: Path, run: Path) -> None:
    photo("in/a/x.jpg")
    photo("in/a/x.png")
    with pytest.raises(RecipeError, match=r"in/a/x\.jpg and in/a/x\.png would both be written to labels/a/x\.png"):
        predicted(run, "in")
    photo("two/y.jpg")
    photo("one/y.jpg")
    with pytest.raises(RecipeError, match=r"one/y\.jpg and two/y\.jpg would both"):
        predicted(run, "one", "two")
    photo("tree/z.jpg")
    photo("tree/z.png/b/c.jpg")
    with pytest.raises(RecipeError, match=r"tree/z\.jpg and tree/z\.png/b/c\.jpg need a file and a folder of one name"):
        predicted(run, "tree")
    assert not Path("out").exists()


def test_files_that_are_there_are_replaced_only_when_asked(here: Path, run: Path) -> None:
    photo("in/x.png")
    photo("in/y.png")
    Path("out/labels").mkdir(parents=True)
    Path("out/labels/y.png").write_text("precious")
    with pytest.raises(RecipeError, match=r"out/labels/y\.png: 1 file of these names there already.*--overwrite"):
        predicted(run, "in")
    with pytest.raises(RecipeError, match=r"predictions\.json is missing, so nothing says what made"):
        predicted(run, "in", existing="skip")
    assert files() == ["labels/y.png"]
    assert Path("out/labels/y.png").read_text() == "precious"
    predicted(run, "in", existing="overwrite")
    assert values("out/labels/y.png").shape == (40, 50)


def test_other_predictions_are_not_mixed_with_these_silently(here: Path, run: Path) -> None:
    photo("in/x.png")
    photo("more/y.png")
    predicted(run, "in")
    with pytest.raises(RecipeError, match="holds other predictions"):
        predicted(run, "more")
    with pytest.raises(RecipeError, match=r"made with other settings\.mode;"):
        predicted(run, "more", existing="skip", changes=[("eval.mode", "slide")])
    predicted(run, "more", existing="skip")
    assert [line["labels"] for line in index()["files"]] == ["labels/x.png", "labels/y.png"]
    Path("out/predictions.json").write_text("[]")
    with pytest.raises(RecipeError, match=r"predictions\.json: not an index"):
        predicted(run, "in", existing="skip")


def test_going_on_predicts_what_is_missing_or_incomplete_and_nothing_else(here: Path, run: Path) -> None:
    for name in "abc":
        photo(f"in/{name}.png")
    predicted(run, "in", overlays=True)
    first = index()
    Path("out/labels/b.png").unlink()
    Path("out/overlays/c.png").unlink()
    kept = Path("out/labels/a.png").stat().st_mtime_ns
    done = predicted(run, "in", overlays=True, existing="skip")
    assert (done["predicted"], done["there_before"]) == (2, 1)
    assert Path("out/labels/a.png").stat().st_mtime_ns == kept
    made = [f"{kind}/{name}.png" for kind in ("labels", "overlays") for name in "abc"]
    assert files() == [".lock", "classes.csv", *made, "predictions.json"]
    assert index()["files"] == first["files"]


def test_a_photo_is_never_replaced_by_its_own_labels(here: Path, run: Path) -> None:
    photo("out/labels/x.png")
    with pytest.raises(RecipeError, match=r"out/labels/x\.png is a photo to be predicted"):
        predicted(run, "out/labels/x.png", existing="overwrite")


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    inference_folder.write_new(tmp_path / "a" / "x.png", [b"1"], overwrite=False)
    with pytest.raises(ResourceError, match=r"x\.png: appeared meanwhile"):
        inference_folder.write_new(tmp_path / "a" / "x.png", [b"2"], overwrite=False)
    assert (tmp_path / "a" / "x.png").read_bytes() == b"1"
    inference_folder.write_new(tmp_path / "a" / "x.png", [b"2"], overwrite=True)
    assert (tmp_path / "a" / "x.png").read_bytes() == b"2"


def test_the_index_says_what_made_which_file(here: Path, run: Path) -> None:
    photo("in/a/x.png")
    done = predicted(run, "in", overlays=True)
    found = index()
    assert found["files"] == [
        {"photo": str(here / "in/a/x.png"), "overlays": "overlays/a/x.png", "labels": "labels/a/x.png"}
    ]
    checkpoint = run / "checkpoints" / "last.safetensors"
    assert found["checkpoint"] == done["checkpoint"] == str(checkpoint)
    assert found["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (found["state"], found["step"], found["dataset"]) == ("done", 6, "shapes-target")
    assert found["settings"]["window"] == [32, 32]
    assert len(found["classes"]) == CLASSES


def test_a_new_folder_in_the_run_is_taken_without_out(here: Path, run: Path) -> None:
    photo("x.png")
    asked = request(init=str(run))
    first, second = (run_predictions(asked, Wanted(photos=("x.png",)))["out"] for _ in range(2))
    assert first != second
    assert Path(first).parent == Path(second).parent == run / "predict"
    assert Path(second, "labels", "x.png").is_file()


def test_each_photo_is_written_before_the_next_is_read(here: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        photo(f"in/{name}.png")
    there = []

    def read(path: str, rule: PhotoRule) -> NDArray[np.uint8]:
        there.append(len([name for name in files() if name.startswith("labels/")]))
        return read_rgb(path)

    monkeypatch.setattr(inference_job, "read_photo", read)
    predicted(run, "in")
    assert there == [0, 1, 2, 3]


# Trouble


def test_a_photo_that_cannot_be_read_stops_by_name_and_what_is_done_stays(here: Path, run: Path) -> None:
    for name in "abc":
        photo(f"in/{name}.png")
    whole = Path("in/b.png").read_bytes()
    Path("in/b.png").write_bytes(whole[:300])
    with pytest.raises(DatasetError, match=r"in/b\.png: damaged"):
        predicted(run, "in")
    assert (index()["state"], [line["labels"] for line in index()["files"]]) == ("failed", ["labels/a.png"])
    Path("in/b.png").write_bytes(whole)
    assert predicted(run, "in", existing="skip")["there_before"] == 1
    assert index()["state"] == "done"


def test_photos_that_cannot_be_read_are_left_out_when_asked(
    here: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("in/good.png")
    Path("in/text.jpg").write_text("hello")
    Path("in/empty.png").touch()
    os.symlink("nowhere", "in/broken.jpg")
    os.mkfifo("in/pipe.jpg")
    photo("in/a\nb.jpg")
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save("in/deep.png")
    done = predicted(run, "in", on_bad_sample="skip")
    assert (done["predicted"], done["skipped"]) == (1, 6)
    assert os.listdir("out/labels") == ["good.png"]
    assert len(index()["skipped"]) == 6
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 6  # quiet, and still told
    assert all(line.startswith("left out: in/") for line in told)
    Path("in/good.png").unlink()
    with pytest.raises(DatasetError, match="6 photos, and none can be read"):
        predicted(run, "in", on_bad_sample="skip", out="other")


def test_a_photo_that_may_not_be_read_is_told(here: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in/x.png")
    original = os.open

    def refuse(path: Any, *rest: Any, **options: Any) -> int:
        if str(path).endswith("x.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ResourceError, match=r"in/x\.png: cannot be read: Permission denied"):
        predicted(run, "in")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_photo_under_way(
    here: Path, run: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in "abcd":
        photo(f"in/{name}.png")
    signalled(monkeypatch, after=2, number=number)
    with pytest.raises(Preempted, match=r"after 2 of 4 photos; the same command with --out out --skip-existing"):
        predicted(run, "in")
    assert files() == [".lock", "classes.csv", "labels/a.png", "labels/b.png", "predictions.json"]
    assert (index()["state"], len(index()["files"])) == ("stopped", 2)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert predicted(run, "in", existing="skip")["predicted"] == 2
    assert (index()["state"], len(index()["files"])) == ("done", 4)


def signalled(monkeypatch: pytest.MonkeyPatch, after: int, number: int) -> None:
    def tell(self: Counter, done: int, count: int) -> None:
        if done == after:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Counter, "tell", tell)


def test_a_second_ctrl_c_leaves_whole_files_only(here: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        photo(f"in/{name}.png")
    original, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        original(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and list(Path("out/labels").glob(".b*")):
            calls.append(descriptor)
            for _ in range(2 if len(calls) == 1 else 0):
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        predicted(run, "in")
    assert len(calls) == 1
    assert os.listdir("out/labels") == ["a.png"]
    assert index()["state"] == "failed"


def failing(monkeypatch: pytest.MonkeyPatch, match: Callable[[str], bool]) -> None:
    """The disk is full for files whose temporary name matches."""
    original, bad = os.open, set()

    def open_(path: Any, *rest: Any, **options: Any) -> int:
        descriptor = original(path, *rest, **options)
        bad.discard(descriptor)
        if match(str(path)):
            bad.add(descriptor)
        return descriptor

    def write(descriptor: int, data: Any) -> int:
        if descriptor in bad:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(descriptor, data)

    plain = os.write
    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "write", write)


def test_a_full_disk_is_one_line_and_leaves_whole_files(here: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        photo(f"in/{name}.png")
    failing(monkeypatch, lambda path: "/.b.png" in path)
    with pytest.raises(ResourceError, match=r"out/labels/b\.png: cannot be written .*No space left"):
        predicted(run, "in")
    assert files() == [".lock", "classes.csv", "labels/a.png", "predictions.json"]
    assert index()["state"] == "failed"


def test_a_folder_that_cannot_be_made_is_named(here: Path, run: Path) -> None:
    photo("in/x.png")
    Path("file").touch()
    with pytest.raises(ResourceError, match=r"file/out: cannot make the folder: Not a directory"):
        predicted(run, "in", out="file/out")
    with pytest.raises(RecipeError, match=r"--out file: expected a folder, found a file"):
        predicted(run, "in", out="file")
    read_only: Sequence[str] = ["/proc/mdp"] if Path("/proc/self").exists() else []
    for out in read_only:
        with pytest.raises(ResourceError, match="cannot make the folder"):
            predicted(run, "in", out=out)


def test_probabilities_that_do_not_fit_the_disk_are_refused_first(
    here: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("in/x.png", 100, 200)
    photo("in/y.png", 10, 20)
    (free := type("Usage", (), {})()).free = 2 * CLASSES * (100 * 200 + 10 * 20) - 1
    monkeypatch.setattr("shutil.disk_usage", lambda place: free)
    with pytest.raises(ResourceError, match=r"probabilities take 0\.3 MiB \(float16, 8 classes a pixel\), and .* free"):
        predicted(run, "in", probabilities=True)
    assert not Path("out").exists()
    free.free += 1
    predicted(run, "in", probabilities=True, quiet=False)
    assert "probabilities take 0.3 MiB" in capsys.readouterr().err


def test_memory_that_is_short_names_the_photo(here: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in/x.png")

    def out_of_memory(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 3 TiB\nmore")

    monkeypatch.setattr(inference_job, "predict", out_of_memory)
    with pytest.raises(ResourceError, match=r"in/x\.png: out of memory \(CUDA .* 3 TiB\); try --mode slide"):
        predicted(run, "in")


def test_loader_processes_change_nothing(here: Path, run: Path) -> None:
    for i in range(3):
        photo(f"in/{i}.png", seed=i)
    predicted(run, "in")
    predicted(run, "in", out="two", changes=[("run.workers", 2)])
    for i in range(3):
        assert Path(f"out/labels/{i}.png").read_bytes() == Path(f"two/labels/{i}.png").read_bytes()
    assert len({Path(f"out/labels/{i}.png").read_bytes() for i in range(3)}) == 3


# The command line


def call(*words: str) -> None:
    cli.main(["predict", *words], standalone_mode=False)


def test_the_command_line_says_what_it_made_on_stdout(
    here: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("in/x.png")
    call("in", "--run", str(run), "--out", "out", "--overlay", "--mode", "slide", "--workers", "0")
    told = capsys.readouterr()
    assert told.out == "out\n"
    assert "1 photo\n" in told.err
    assert index()["settings"]["mode"] == "slide"
    assert Path("out/overlays/x.png").is_file()
    call("in", "--run", str(run), "--out", "out", "--skip-existing", "--mode", "slide", "--json", "-q")
    told = capsys.readouterr()
    assert json.loads(told.out)["there_before"] == 1
    assert told.err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("in --skip-existing --overwrite --out out", "give one of the two"),
        ("in --skip-existing", "--skip-existing needs --out"),
        ("", "Missing argument"),
        ("in --overlays", "No such option"),
        ("in", "no fine-tuning run in runs/finetune or runs; run `mdp finetune` first, or give --run"),
        ("in --run nothing", "nothing: expected a run folder"),
        ("in --run in/x.png", "in/x.png: "),
    ],
)
def test_mistakes_on_the_command_line_are_told(here: Path, words: str, message: str) -> None:
    photo("in/x.png")
    with pytest.raises((click.UsageError, MdpError)) as caught:
        call(*words.split())
    text = caught.value.format_message() if isinstance(caught.value, click.UsageError) else str(caught.value)
    assert message in text
    assert sorted(os.listdir()) == ["in"]


def test_targets_mirror_the_folders_of_a_photo() -> None:
    found = targets(Path("out"), Photo(Path("in/a/x.tar.jpg"), Path("a/x.tar.jpg")), ("labels", "probabilities"))
    assert found == {"labels": Path("out/labels/a/x.tar.png"), "probabilities": Path("out/probabilities/a/x.tar.npy")}
