"""`mdp probe`: whole probes of a few images whose colours are their classes, by all classifiers; and refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdp.core.geometry import Box
from mdp.io.data.pool import Pool
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.processes import signals
from mdp.io.report.pictures import read_pictures
from mdp.io.unsupervised import probe as module
from mdp.io.unsupervised.asked import Probe
from mdp.io.unsupervised.probe import probe_table, run_probe
from mdp.io.unsupervised.probe_images import Cut, ProbeItem, ProbeItems, centre, probed
from tests.preloaded import run
from tests.trees import lines

COLORS = {"blue": (30, 30, 200), "green": (30, 200, 30), "red": (200, 30, 30)}
LAYER = {"run": {"workers": 0, "threads": 1}, "model": {"backbone": "resnet18", "width": 8}}


def write_photo(path: Path, color: tuple[int, int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 20, (32, 48, 3))
    Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six photos for each colour."""
    folder = tmp_path_factory.mktemp("by_class")
    for name, color in COLORS.items():
        for number in range(6):
            write_photo(folder / name / f"{number}.png", color, number)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmentation set whose images have one or two of three classes, and a fourth that is in none."""
    folder = tmp_path_factory.mktemp("own")
    colors = np.array([(0, 0, 0), *COLORS.values()])
    for split, pairs in {
        "train": [(1, 2), (2, 2), (3, 1), (3, 3), (1, 1), (2, 3)],
        "val": [(2, 1), (3, 3), (1, 0)],
    }.items():
        for number, pair in enumerate(pairs):
            ids = np.repeat(np.array(pair), 24)[None].repeat(32, 0).astype(np.uint8)
            for kind, picture in (("images", colors[ids].astype(np.uint8)), ("labels", ids)):
                path = folder / kind / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    splits = [f"  {split}: {{images: images/{split}, labels: labels/{split}}}" for split in ("train", "val")]
    lines(folder / "own.yaml", ["classes: {1: blue, 2: green, 3: red, 4: grey}", "ignore: [0]", "splits:", *splits])
    return folder / "own.yaml"


@pytest.fixture(autouse=True)
def few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "penalties", lambda: [100.0, 1.0])


def probe(**asked: Any) -> dict[str, Any]:
    return run_probe(Probe(**{"source": "colors", "size": 32, **asked}), LAYER, quiet=True)


@pytest.mark.parametrize("classifier", ["logistic", "svm", "sgd"])
def test_every_classifier_tells_photos_of_one_color_from_those_of_another(folders: Path, classifier: str) -> None:
    scores = probe(folders=folders, classifier=classifier, epochs=6)
    assert (scores["measure"], scores["top1"], scores["images"], scores["train_images"]) == ("top1", 1, 3, 15)
    assert scores["without_features"] == pytest.approx(1 / 3)
    assert probe_table(scores).splitlines()[-1].startswith("top-1 100.00")


def test_a_label_map_says_what_is_in_an_image_and_a_class_that_is_in_none_counts_for_nothing(
    own: Path, tmp_path: Path
) -> None:
    scores = probe(target=str(own), out=tmp_path / "out")
    assert (scores["classifier"], scores["map"]) == ("svm", 1)
    assert [(row["images"], row["score"]) for row in scores["classes"]] == [(2, 1), (1, 1), (1, 1), (0, None)]
    assert scores["without_features"] == pytest.approx((2 + 1 + 1) / 9)
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == json.loads(json.dumps(scores))
    assert (tmp_path / "out" / "results.csv").read_text().splitlines()[1] == "blue,2,1.0"
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "out", run / "probe" / "own-val")
    (shown,) = read_pictures(run, notes := [])
    assert (shown.kind, notes) == ("activations", [])
    assert shown.caption == "own-val: where the linear classifier of mdp probe finds classes"
    assert probe(target=str(own), classifier="logistic")["map"] == 1


def test_random_features_are_probed_twice_alike(folders: Path) -> None:
    first, again = (probe(folders=folders, source="scratch", classifier="sgd", epochs=2) for _ in range(2))
    assert first == again


def test_folders_of_splits_are_taken_as_they_are(folders: Path, tmp_path: Path) -> None:
    for split, numbers in (("train", (0, 1)), ("val", (2,))):
        for name, color in COLORS.items():
            for number in numbers:
                write_photo(tmp_path / "set" / split / name / f"{number}.png", color, number)
    images = probed("", tmp_path / "set", tmp_path, 0)
    assert (len(images.train.samples), len(images.test.samples), images.split) == (6, 3, "val")
    assert images.classes == ("blue", "green", "red")


def test_the_centre_of_an_image_is_cut_as_the_protocol_says() -> None:
    assert centre(256, 320, Cut(size=224, short=256)) == Box(16, 48, 224, 224)
    assert centre(256, 320, Cut(size=224)) == Box(0, 0, 256, 320)


def test_random_crops_are_a_function_of_seed_epoch_and_image(folders: Path) -> None:
    images = probed("", folders, folders, 0)

    def crop(pool: Pool, epoch: int) -> torch.Tensor:
        item = ProbeItems(images, pool, Cut(size=16, random=True), seed=3)[epoch, 1]
        assert isinstance(item, ProbeItem)
        return item.image

    assert torch.equal(crop(images.train, 0), crop(images.train, 0))
    assert not torch.equal(crop(images.train, 0), crop(images.train, 1))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({}, RecipeError, "give --target NAME, or --folders DIR"),
        ({"target": "OWN", "classifier": "sgd"}, RecipeError, "sgd: it is for images of one class each"),
        ({"target": "OWN:train"}, RecipeError, "train is what the classifier is fitted to"),
        ({"folders": "FOLDER/none"}, DatasetError, "none: expected a folder, found none"),
        ({"folders": "FOLDER/red"}, DatasetError, "expected a folder for each of two classes or more"),
    ],
    ids=["nothing", "sgd", "train", "absent", "one-class"],
)
def test_what_cannot_be_probed_is_refused_in_one_line(
    own: Path, folders: Path, change: dict[str, str], error: type[Exception], words: str
) -> None:
    asked: dict[str, Any] = {key: text.replace("OWN", str(own)) for key, text in change.items()}
    if "folders" in asked:
        asked["folders"] = Path(asked["folders"].replace("FOLDER", str(folders)))
    with pytest.raises(error, match=words):
        probe(**asked)


def test_half_a_set_of_folders_is_refused(tmp_path: Path) -> None:
    write_photo(tmp_path / "train" / "red" / "1.png", COLORS["red"], 0)
    with pytest.raises(DatasetError, match="it has train and no val"):
        probed("", tmp_path, tmp_path, 0)
    write_photo(tmp_path / "train" / "blue" / "1.png", COLORS["blue"], 0)
    write_photo(tmp_path / "val" / "grey" / "1.png", COLORS["red"], 0)
    with pytest.raises(DatasetError, match="val has 'grey', and train does not"):
        probed("", tmp_path, tmp_path, 0)


def test_a_stopped_probe_writes_nothing(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals.Stop, "__bool__", lambda self: True)
    with pytest.raises(Preempted, match="nothing was written"):
        probe(folders=folders, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_table(folders: Path, tmp_path: Path) -> None:
    options = ["--folders", str(folders), *"--size 32 --workers 0 --classifier svm".split()]  # noqa: SIM905
    words = ["-m", "mdp", "probe", "colors", *options]
    done = run(words, tmp_path)
    assert done.code == 0, done.err
    assert "3 classes, 15 photos to fit, 3 to score, drawn by seed 0" in done.err
    assert done.out.splitlines()[-1] == "top-1 100.00   always saying the most frequent class: 33.33"
