"""`mdp luss score`: folders of predictions against a dataset and against another folder, as a user has them."""

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.files.photos import read_claims
from mdp.io.unsupervised.asked import Score
from mdp.io.unsupervised.score import run_score, score_table
from mdp.io.unsupervised.submission import run_submission
from tests.preloaded import run
from tests.trees import imagenet_s_tree, lines, photo

PLACES = ((2, 2, 8, 8), (4, 1, 14, 15), (0, 0, 6, 16))


def packed(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)).save(path)


def truths() -> list[np.ndarray]:
    """Two images of each of three categories, with an ignored corner in the first."""
    found = []
    for number, (top, left, bottom, right) in enumerate(PLACES * 2):
        ids = np.zeros((16, 16), dtype=np.int64)
        ids[top:bottom, left:right] = 1 + number % 3
        found.append(ids)
    found[0][12:, 12:] = 1000
    return found


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """Label maps, predictions whose categories have other numbers above 255, and a dataset of both kinds of folders."""
    other = np.array([0, 300, 7, 2])
    for number, ids in enumerate(truths()):
        place = Path(str(number % 2), f"{number}.png")
        packed(tmp_path / "truth" / place, ids)
        packed(tmp_path / "made" / place, other[np.where(ids == 1000, 0, ids)])
        photo(tmp_path / "photos" / place, number, (16, 16))
        grey = Image.fromarray(np.where(ids == 1000, 255, ids).astype(np.uint8))
        (tmp_path / "labels" / place.parent).mkdir(parents=True, exist_ok=True)
        grey.save(tmp_path / "labels" / place)
    lines(
        tmp_path / "own.yaml",
        ["classes: {0: other, 1: cup, 2: dog, 3: sky}", "splits:", "  val: {images: photos, labels: labels}"],
    )
    return tmp_path


def scored(**asked: Any) -> dict[str, Any]:
    return run_score(Score(**asked), quiet=True)


def test_categories_with_other_numbers_are_matched_and_the_matching_serves_further_predictions(trees: Path) -> None:
    found = scored(predictions=trees / "made", labels=trees / "truth", out=trees / "out")
    assert [found[key] for key in ("images", "categories", "generated", "miou", "image_accuracy")] == [6, 3, 300, 1, 1]
    assert json.loads((trees / "out" / "match.json").read_text()) == {"0": 0, "2": 3, "7": 2, "300": 1}
    again = scored(predictions=trees / "made", labels=trees / "truth", matching=str(trees / "out" / "match.json"))
    kept = {key: value for key, value in found.items() if key != "matching"}
    assert {key: value for key, value in again.items() if key != "matching"} == kept
    assert json.loads((trees / "out" / "scores.json").read_text())["miou"] == 1


def test_a_dataset_is_scored_as_a_folder_of_its_label_maps_is(trees: Path) -> None:
    folder = scored(predictions=trees / "made", labels=trees / "truth")
    dataset = scored(predictions=trees / "made", target=str(trees / "own.yaml"))
    assert {**dataset, "against": 0} == {**folder, "against": 0}


def test_without_a_matching_numbers_are_what_they_say(trees: Path) -> None:
    same = scored(predictions=trees / "truth", labels=trees / "truth", matching="none")
    assert same["miou"] == same["boundary"][0]["miou"] == 1
    with pytest.raises(DatasetError, match="categories 0 to 3, found 300; --matching images finds out which is which"):
        scored(predictions=trees / "made", target=str(trees / "own.yaml"), matching="none")


def test_two_annotators_agree_the_less_at_boundaries_the_narrower_they_are(trees: Path) -> None:
    for path in (trees / "truth").rglob("*.png"):
        moved = np.roll(np.array(Image.open(path)), 1, axis=1)
        (trees / "second" / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(moved).save(trees / "second" / path.parent.name / path.name)
    asked = {"predictions": trees / "second", "labels": trees / "truth", "matching": "none"}
    found = scored(**asked, ratios=(0.05, 0.15, 1.0))
    narrow, wide, whole = (own["miou"] for own in found["boundary"])
    assert narrow < wide < whole == found["miou"] < 1
    assert "boundary mIoU, 15%" in score_table(found)


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({}, RecipeError, "give --target NAME or --labels FOLDER, one of both"),
        ({"labels": "truth", "target": "own.yaml"}, RecipeError, "one of both"),
        ({"labels": "nothing"}, DatasetError, "nothing: expected a folder of label maps, found none"),
        ({"predictions": "nothing", "labels": "truth"}, DatasetError, "expected a folder of predicted label maps"),
        (
            {"predictions": "truth/0", "labels": "truth"},
            DatasetError,
            "0 of 6 predictions are there; the first that is",
        ),
        (
            {"labels": "truth", "matching": "no.json"},
            RecipeError,
            "--matching no.json: expected images, none or a match",
        ),
        ({"labels": "truth", "matching": "own.yaml"}, DatasetError, "own.yaml: expected numbers by numbers"),
        ({"labels": "truth", "matching": "odd.json"}, DatasetError, 'odd.json: expected 0 for "0", .* got 3'),
        ({"labels": "truth", "ratios": (2.0,)}, RecipeError, r"--boundary: ratios: expected numbers in \[0, 1\]"),
        (
            {"labels": "truth", "predictions": "clear"},
            DatasetError,
            "clear/0/0.png: a label map of mode RGBA; expected",
        ),
        ({"labels": "small"}, DatasetError, "made/0/0.png: it is 16 x 16 and the label map 4 x 5"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(
    trees: Path, asked: dict[str, Any], kind: type[MdpError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trees)
    packed(Path("small/0/0.png"), np.zeros((5, 4), dtype=np.int64))
    for path in Path("made").rglob("*.png"):
        clear = Path("clear", *path.parts[1:])
        clear.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGBA").save(clear)
    Path("odd.json").write_text('{"0": 3, "1": 1}')
    paths = {key: Path(value) for key, value in asked.items() if key in ("labels", "predictions")}
    with pytest.raises(kind, match=words) as raised:
        scored(**{"predictions": Path("made"), **asked, **paths})
    assert "\n" not in str(raised.value)


def test_the_command_prints_a_table_and_json(trees: Path) -> None:
    words = ["-m", "mdp", "luss", "score", "made", "--labels", "truth"]
    table = run(words, trees)
    assert (table.code, table.err.splitlines()[0]) == (0, "truth: 6 label maps")
    assert table.out.splitlines()[-1].startswith("mIoU 100.00 [100.00, 100.00]   image accuracy 100.00   F-beta 100.00")
    assert json.loads(run([*words, "--json", "-q"], trees).out)["miou_by_size"]["medium_small"] == 1


@pytest.fixture
def edition(tmp_path: Path) -> Path:
    """ImageNet-S50 in small, and predictions for its photos."""
    imagenet_s_tree(tmp_path)
    shutil.copytree(tmp_path / "ImageNetS50" / "validation", tmp_path / "ImageNetS50" / "test")
    for split in ("validation", "test"):
        for image in (tmp_path / "ImageNetS50" / split).rglob("*.JPEG"):
            height, width, _ = read_claims(str(image))
            place = tmp_path / split / image.parent.name / f"{image.stem}.png"
            packed(place, np.full((height, width), 300 if split == "test" else 7))
    return tmp_path


def submitted(folder: Path, split: str, **asked: Any) -> tuple[dict[str, Any], zipfile.ZipFile]:
    whole = Score(predictions=folder / split, target=f"imagenet_s50:{split}", root=folder, **asked)
    found = run_submission(whole, folder / "x.zip", folder / "method" if (folder / "method").exists() else None, True)
    return found, zipfile.ZipFile(folder / "x.zip")


def test_a_submission_has_every_prediction_what_made_it_and_the_matching_of_others(
    edition: Path,
) -> None:
    found, first = submitted(edition, "validation")
    assert found["match"]
    assert found["scores"]["images"] == found["images"]
    match = first.read("match.json")
    assert json.loads(match)["0"] == 0
    (edition / "match.json").write_bytes(match)
    (edition / "method").write_text("Method name: nothing\n")
    found, zipped = submitted(edition, "test", matching=str(edition / "match.json"))
    pictures = sorted(name for name in zipped.namelist() if name.endswith(".png"))
    assert pictures == sorted(
        path.relative_to(edition / "test").as_posix() for path in (edition / "test").rglob("*.png")
    )
    assert (zipped.read("method.txt"), zipped.read("match.json")) == (b"Method name: nothing\n", match)
    assert Image.open(io.BytesIO(zipped.read(pictures[0]))).getpixel((0, 0)) == (300 % 256, 1, 0)
    assert "scores" not in found
    before = (edition / "x.zip").read_bytes()
    submitted(edition, "test", matching=str(edition / "match.json"))
    assert (edition / "x.zip").read_bytes() == before


def test_a_submission_that_a_server_would_refuse_is_not_written(edition: Path) -> None:
    (edition / "method").write_text("")
    place = next((edition / "test").rglob("*.png"))
    packed(place, np.zeros((3, 4), dtype=np.int64))
    with pytest.raises(DatasetError, match="it is 4 x 3 and the photo"):
        submitted(edition, "test")
    place.unlink()
    with pytest.raises(DatasetError, match="predictions are there; the first that is not there is"):
        submitted(edition, "test")
    assert not (edition / "x.zip").exists()
    with pytest.raises(RecipeError, match="expected --target NAME:SPLIT"):
        run_submission(Score(predictions=edition, labels=edition), edition / "x.zip")
