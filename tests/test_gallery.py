"""The gallery of the worst images: which they are, what their pictures show, and what is written."""

import json
import random
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mdp.cli import cli
from mdp.core.labels import IGNORE, LabelSpace
from mdp.core.metrics import confusion_matrix, mean_iou, pixel_accuracy
from mdp.core.protocols import Counted, Prediction, segmentation
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import ResourceError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.pictures import gallery, sheet
from mdp.io.pictures.gallery import Shown, Worst, errors, page, panels, write_gallery
from mdp.io.processes.world import ALONE
from mdp.io.training.job import run_finetuning
from tests import preloaded
from tests.small_runs import TINY, request

SPACE = LabelSpace(name="a", classes=("road", "car", "sky"), colors=((10, 20, 30), (200, 0, 0), (0, 0, 250)))
STEP = gallery._PANEL[0] + sheet.GAP


def observe_(worst: Worst, place: int, guess: Tensor, labels: Tensor, name: str = "") -> None:
    prediction, image = Prediction(guess), torch.zeros(3, *labels.shape, dtype=torch.uint8)
    counts = segmentation.count(prediction, labels, SPACE, segmentation.Settings(boundary=False))
    worst.observe_(Counted(place, name or f"{place}.png", image, labels, prediction, counts))


def shown(place: int, name: str, classes: tuple[int, ...] = (0,), noise: bool = False) -> Shown:
    size = (gallery._PANEL[1], 4 * STEP - sheet.GAP, 3)
    rng = np.random.default_rng(place)
    picture = np.zeros(size, dtype=np.uint8)
    if noise:
        picture[:, : gallery._PANEL[0]] = rng.integers(
            0, 256, (gallery._PANEL[1], gallery._PANEL[0], 3), dtype=np.uint8
        )
    return Shown(place / 100, place, name, 0.5, classes, gallery.png_bytes(Image.fromarray(picture)))


# Which images


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 2**32))
def test_the_worst_are_the_first_of_all_sorted_whatever_order_they_come_in(
    right: list[int], count: int, seed: int
) -> None:
    labels = torch.zeros(2, 2, dtype=torch.int16)
    order = list(range(len(right)))
    random.Random(seed).shuffle(order)
    halves = [Worst(count, SPACE), Worst(count, SPACE)]  # as two processes would
    alone = Worst(count, SPACE)
    for place in order:
        guess = (torch.arange(4) >= right[place]).long().view(2, 2)
        observe_(halves[place % 2], place, guess, labels)
        observe_(alone, place, guess, labels)
    score = {
        place: mean_iou(confusion_matrix((torch.arange(4) >= right[place]).long(), labels.view(4), 3))
        for place in order
    }
    expected = sorted(order, key=lambda place: (score[place], place))[:count]
    assert [item.sample for item in alone.of_all(ALONE)] == expected
    assert [item.miou for item in alone.of_all(ALONE)] == [score[place] for place in expected]
    merged = halves[0].of_all(Both([half.of_all(ALONE) for half in halves]))  # type: ignore[arg-type]
    assert merged == alone.of_all(ALONE)
    assert len(alone.heap) <= count


class Both:
    """A world of two processes of which one has heard the other."""

    def __init__(self, said: list[list[Shown]]) -> None:
        self.said = said

    def gather_objects(self, value: Any) -> list[Any]:
        assert sorted(value) == self.said[0]
        return self.said


def test_an_images_score_counts_the_classes_labelled_or_predicted_in_it() -> None:
    worst = Worst(1, SPACE)
    labels = torch.tensor([[0, 0, 0, IGNORE]], dtype=torch.int16)
    observe_(worst, 0, torch.tensor([[0, 0, 1, 2]]), labels)
    (item,) = worst.of_all(ALONE)
    assert item.miou == pytest.approx((2 / 3 + 0) / 2)  # road 2 of 3, car predicted once; sky only where ignored
    assert item.accuracy == pytest.approx(2 / 3)
    assert item.classes == (0, 1)


def test_an_image_without_labelled_pixels_is_left_out() -> None:
    worst = Worst(3, SPACE)
    observe_(worst, 0, torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), IGNORE, dtype=torch.int16))
    assert worst.of_all(ALONE) == []


# What the pictures show


def test_errors_are_red_where_wrong_and_grey_where_ignored() -> None:
    picture = errors(np.array([[0, 1, 1]]), np.array([[0, 0, IGNORE]]))
    assert picture[0].tolist() == [list(gallery._RIGHT), list(gallery._WRONG), list(sheet.IGNORED)]


def at(picture: Image.Image, panel: int, x: float, y: float) -> tuple[int, ...]:
    pixel = picture.getpixel((round(panel * STEP + x), round(y)))
    assert isinstance(pixel, tuple)
    return pixel


def test_the_panels_are_photo_truth_prediction_and_errors() -> None:
    image = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]], dtype=torch.uint8)
    labels = torch.tensor([[0, 1], [2, IGNORE]], dtype=torch.int16)
    picture = panels(image, torch.tensor([[0, 2], [2, 1]]), labels, SPACE)
    near, far = 60, 200  # of a panel of 260 x 260
    assert [at(picture, 0, x, y) for y in (near, far) for x in (near, far)] == [
        (1, 5, 9),
        (2, 6, 10),
        (3, 7, 11),
        (4, 8, 12),
    ]
    road, car, sky = SPACE.colors
    assert [at(picture, 1, x, y) for y, x in ((near, near), (near, far), (far, near))] == [road, car, sky]
    assert [at(picture, 2, x, y) for y in (near, far) for x in (near, far)] == [road, sky, sky, car]
    assert [at(picture, 3, x, y) for y in (near, far) for x in (near, far)] == [
        gallery._RIGHT, gallery._WRONG, gallery._RIGHT, sheet.IGNORED,
    ]  # fmt: skip


def test_ignored_pixels_of_the_truth_are_striped_and_only_they() -> None:
    grey = LabelSpace(name="a", classes=("b", "c"), colors=(sheet.IGNORED, (1, 2, 3)))
    labels = torch.zeros(100, 100, dtype=torch.int16)
    labels[:, 50:] = IGNORE
    picture = np.array(panels(torch.zeros(3, 100, 100, dtype=torch.uint8), torch.zeros(100, 100).long(), labels, grey))
    truth = picture[:, STEP : STEP + 260]
    assert np.unique(truth[:, :125].reshape(-1, 3), axis=0).tolist() == [list(sheet.IGNORED)]
    half = truth[:, 135:].reshape(-1, 3)
    assert 0.3 < (half == sheet.STRIPE).all(1).mean() < 0.7


def test_one_wrong_pixel_of_a_large_image_still_shows() -> None:
    labels = torch.zeros(3000, 3000, dtype=torch.int16)
    guess = torch.zeros(3000, 3000, dtype=torch.int64)
    guess[1001:1007, 1001:1007] = 1  # between the pixels that a resampling by nearest ones would look at
    picture = np.array(panels(torch.zeros(3, 3000, 3000, dtype=torch.uint8), guess, labels, SPACE))
    assert (picture[:, 3 * STEP : 3 * STEP + 260] != gallery._RIGHT).any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4000), (4000, 1), (2, 3)])
def test_images_of_any_shape_fit_a_panel(height: int, width: int) -> None:
    labels = torch.zeros(height, width, dtype=torch.int16)
    picture = panels(torch.zeros(3, height, width, dtype=torch.uint8), labels.long(), labels, SPACE)
    assert picture.width == 4 * STEP - sheet.GAP
    assert 1 <= picture.height <= gallery._PANEL[1]


# Pages


def colors_in(picture: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.unique(np.array(picture).reshape(-1, 3), axis=0).tolist()}


def test_the_legend_has_the_classes_that_occur_and_no_other() -> None:
    found = colors_in(page([shown(0, "a", (0,)), shown(1, "b", (2,))], ["1.", "2."], SPACE, "title"))
    assert {SPACE.colors[0], SPACE.colors[2]} <= found
    assert SPACE.colors[1] not in found


def test_pages_have_one_width_and_stay_small(tmp_path: Path) -> None:
    many = LabelSpace(name="m", classes=tuple(f"{i} {'long name ' * 30}" for i in range(171)))
    worst = [shown(i, f"a/{'b' * 3000}/{i}\x1b.png", tuple(range(171)), noise=True) for i in range(12)]
    (path,) = write_gallery(tmp_path, worst, many, "title " * 100)
    assert path.stat().st_size < 4 * 2**20  # with photos of noise, which does not compress
    with Image.open(path) as picture:
        assert picture.width == gallery._WIDTH
        assert np.array(picture)[:, -sheet.MARGIN + 1 :].min() == 255  # nothing runs over the edge
    (path,) = write_gallery(tmp_path, [shown(i, f"{i}.png") for i in range(12)], SPACE, "title")
    assert path.stat().st_size < 2**20


def test_names_are_cut_in_the_middle_to_what_fits() -> None:
    font, room = sheet.font(15), gallery._WIDTH - 2 * sheet.MARGIN
    cut = sheet.cut("begin" + "x" * 5000 + "end.png", font, room)
    assert cut.startswith("begin")
    assert cut.endswith("end.png")
    assert font.getlength(cut) <= room
    assert sheet.cut("short.png", font, room) == "short.png"


def test_gallery_json_lists_the_images_worst_first_with_their_pages(tmp_path: Path) -> None:
    worst = [shown(i, f"dir/{i}.png") for i in range(14)]
    pages = write_gallery(tmp_path / "g", worst, SPACE, "title")
    assert [path.name for path in pages] == ["page-01.png", "page-02.png"]
    found = json.loads((tmp_path / "g" / "gallery.json").read_text())
    assert [line["image"] for line in found["images"]] == [f"dir/{i}.png" for i in range(14)]
    assert [line["rank"] for line in found["images"]] == list(range(1, 15))
    assert [line["page"] for line in found["images"]] == ["page-01.png"] * 12 + ["page-02.png"] * 2
    assert found["images"][3]["miou"] == 0.03


def test_a_shorter_gallery_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    write_gallery(tmp_path, [shown(i, f"{i}") for i in range(14)], SPACE, "title")
    (tmp_path / "page-of-mine.png").touch()
    write_gallery(tmp_path, [shown(i, f"{i}") for i in range(2)], SPACE, "title")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery.json", "page-01.png", "page-of-mine.png"]
    assert write_gallery(tmp_path, [], SPACE, "title") == []
    assert json.loads((tmp_path / "gallery.json").read_text())["images"] == []


def test_a_gallery_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot make the folder"):
        write_gallery(tmp_path / "file" / "g", [shown(0, "a")], SPACE, "title")


# The whole way


@pytest.fixture
def tuned(in_an_empty_folder: None) -> Path:
    return run_finetuning(request(init="scratch"))


def test_the_gallery_of_an_evaluation_agrees_with_its_predictions(
    tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = run_evaluation(request(init=str(tuned)), "last", keep=False)
    scores, folder = run_evaluation(request(init=str(tuned), quiet=False), "last", keep=True, gallery=3)
    assert scores == plain
    found = json.loads((folder / "gallery" / "gallery.json").read_text())
    assert "gallery: 3 images on 1 page in" in capsys.readouterr().err
    dataset = load("shapes-target")
    expected = []
    for place, sample in enumerate(open_split(dataset, Path(), "val")[0][:5]):
        with Image.open(folder / "predictions" / f"{Path(sample.image).stem}.png") as picture:
            guess = torch.from_numpy(np.array(picture))
        rgb, raw = dataset.read(sample)
        labels = torch.from_numpy(dataset.labels.to_classes(raw))
        row = gallery.png_bytes(panels(torch.from_numpy(rgb).permute(2, 0, 1), guess, labels, dataset.labels))
        counts = confusion_matrix(guess, labels, 8)
        classes = tuple(torch.cat([guess.flatten(), labels[labels != IGNORE].flatten()]).unique().tolist())
        expected.append(Shown(mean_iou(counts), place, sample.image, pixel_accuracy(counts), classes, row))
    expected = sorted(expected)[:3]
    listed = [(line["miou"], line["image"], line["accuracy"]) for line in found["images"]]
    assert listed == [(item.miou, item.name, item.accuracy) for item in expected]
    whole = page(
        expected, ["1.", "2.", "3."], dataset.labels, "shapes-target val: the worst 3 of 5 images, page 1 of 1"
    )
    with Image.open(folder / "gallery" / "page-01.png") as picture:
        assert (np.array(picture) == np.array(whole)).all()


def test_the_command_line_takes_a_number_or_none(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.json").write_text(json.dumps({key: TINY[key] for key in ("run", "eval")}))
    common = ["eval", str(tuned), "--config", "small.json", "-q", "--json"]
    for words, count in ((["--gallery", "2"], 2), (["--gallery"], 5), (["--gallery=1"], 1)):
        cli.main([*common, *words], standalone_mode=False)
        capsys.readouterr()
        found = json.loads((tuned / "eval/shapes-target-val-first-5/gallery/gallery.json").read_text())
        assert len(found["images"]) == count
    for word in ("0", "1001", "runs/x", "1.5"):
        with pytest.raises(click.BadParameter, match="RUN goes before --gallery"):
            cli.main([*common, f"--gallery={word}"], standalone_mode=False)


def test_two_processes_draw_what_one_draws(tuned: Path) -> None:
    Path("small.json").write_text(json.dumps({key: TINY[key] for key in ("run", "eval")}))
    command = ["mdp", "eval", str(tuned.resolve()), "--config", "small.json", "-q", "--gallery=3"]
    words = ["-m", "tests.forking", *command, "--out", "two", "--processes", "2"]
    done = preloaded.run(words, Path(), PYTHONPATH=str(preloaded.ROOT))
    assert done.code == 0, done.err
    run_evaluation(request(init=str(tuned), out=Path("one")), "last", keep=False, gallery=3)
    for name in ("gallery.json", "page-01.png"):
        assert Path("one/gallery", name).read_bytes() == Path("two/gallery", name).read_bytes()
