"""Pictures of training samples and predictions: the right pixels in the right places, and what a run keeps of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mdp.core.batches import Batch, Blend
from mdp.core.labels import IGNORE, LabelSpace, LabelUnion
from mdp.core.photometry import normalise
from mdp.io.data.class_shares import class_shares
from mdp.io.data.selection import pool_of
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Sample, open_split
from mdp.io.errors import DatasetError, Diverged
from mdp.io.files.colormap import voc_colormap
from mdp.io.pictures import samples
from mdp.io.pictures import sheet as layout
from mdp.io.pictures.best_and_worst import ImageScores, Scored, best_median_worst
from mdp.io.pictures.class_colors import colors_of_space, colors_of_union
from mdp.io.pictures.gallery import look, page
from mdp.io.pictures.samples import sample_sheet, strangest, unusable_sheet
from mdp.io.processes.world import ALONE
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.small_runs import assert_same, request, tensors_of

UNION = LabelUnion([LabelSpace(name="a", classes=("road", "sky")), LabelSpace(name="b", classes=("car",))])
COLORS = np.array(voc_colormap(4)[1:], dtype=np.float64)
STEP, SIDE = samples._PANEL[0] + layout.GAP, samples._PANEL[0]


def batch(count: int, side: int = 23) -> Batch:
    """Grey images, each its own, and labels: the left half road, the right one sky, a corner ignored."""
    grey = torch.arange(count).view(count, 1, 1, 1).expand(count, 3, side, side) / 10 + 0.1
    labels = torch.zeros(count, side, side, dtype=torch.int64)
    labels[:, :, side // 2 :] = 1
    labels[:, -3:, -3:] = IGNORE
    return Batch(normalise(grey), labels)


def tiles(sheet: Image.Image, columns: int, count: int) -> list[list[NDArray[np.uint8]]]:
    """The pictures of the lowest `count` rows, from the bottom of the page."""
    pixels = np.array(sheet)
    row = SIDE + layout.LINE + layout.GAP
    tops = [pixels.shape[0] - layout.MARGIN - (count - i) * row + layout.LINE + layout.GAP for i in range(count)]
    lefts = [layout.MARGIN + i * STEP for i in range(columns)]
    return [[pixels[top : top + SIDE, left : left + SIDE] for left in lefts] for top in tops]


def test_each_view_stands_beside_its_labels_and_ignored_pixels_keep_the_photo() -> None:
    views = [batch(3), batch(3)]
    sheet = sample_sheet(views, ["x", "y", "z"], UNION, "title")
    for i, row in enumerate(tiles(sheet, 4, 3)):
        grey = round(255 * (0.1 + i / 10))
        for photo, labelled in (row[:2], row[2:]):
            assert np.abs(photo.astype(int) - grey).max() <= 1
            for place, label in ((5, 0), (SIDE - 5, 1)):
                expected = (1 - samples._OPACITY) * grey + samples._OPACITY * COLORS[label]
                assert np.abs(labelled[5, place] - expected).max() <= 1
            assert np.abs(labelled[-5, -5].astype(int) - grey).max() <= 1


def test_views_of_several_sizes_without_labels_stand_side_by_side() -> None:
    views = [batch(3, side)._replace(labels=torch.empty(3, 0, 0, dtype=torch.int64)) for side in (23, 23, 12)]
    for i, row in enumerate(tiles(sample_sheet(views, ["x", "y", "z"], UNION, "title"), 3, 3)):
        for photo in row:
            assert np.abs(photo.astype(int) - round(255 * (0.1 + i / 10))).max() <= 1


def test_the_strangest_sample_is_the_strangest_in_any_of_its_views() -> None:
    large, small = torch.zeros(3, 3, 8, 8), torch.zeros(3, 3, 4, 4)
    large[1, 0, 2, 2], small[2, 1, 0, 0] = 3, -torch.inf
    assert strangest(large, small) == [2, 1, 0]


def test_a_blend_has_the_colours_of_both_labels_by_its_share() -> None:
    first = batch(1)
    second = torch.full_like(first.labels, 2)
    second[:, :3] = IGNORE
    blend = Blend(first.images, first.labels, second, torch.tensor([0.75]))
    ((_, labelled),) = tiles(sample_sheet([blend], ["x"], UNION, "title"), 2, 1)
    tint = 0.75 * COLORS[0] + 0.25 * COLORS[2]
    grey = 255 * 0.1
    assert np.abs(labelled[SIDE // 2, 5] - ((1 - samples._OPACITY) * grey + samples._OPACITY * tint)).max() <= 1
    only = (1 - samples._OPACITY) * grey + samples._OPACITY * COLORS[0]  # where the other one is ignored
    assert np.abs(labelled[5, 5] - only).max() <= 1


def test_two_samples_share_a_row_where_each_has_two_pictures() -> None:
    alone, two = (sample_sheet([batch(count)], ["x"] * count, UNION, "title") for count in (1, 2))
    assert alone.size == two.size
    assert np.array(two)[:, alone.width // 2 + 40 :].min() < np.array(alone)[:, alone.width // 2 + 40 :].min()


def test_pixels_that_are_not_finite_are_magenta_and_come_first() -> None:
    found = batch(4)
    images = found.images.clone()
    images[1, :, 4] = 50.0
    images[2, 0, 3, 3] = torch.nan
    images[3, 0, 3, 3] = -torch.inf
    assert strangest(images) == [2, 3, 1, 0]
    sheet = sample_sheet([Batch(images, found.labels)] * 2, list("wxyz"), UNION, "t", strangest(images)[:1])
    photo = tiles(sheet, 4, 1)[0][0]
    assert photo[35, 35].tolist() == [255, 0, 255]
    assert photo[5, 5].tolist() != [255, 0, 255]


@given(st.integers(0, 40), st.integers(1, 3))
def test_best_median_and_worst_are_in_order_and_none_is_shown_twice(count: int, each: int) -> None:
    scored = [Scored(i / 40, 100 + i) for i in range(count)]
    chosen = best_median_worst(scored, each)
    assert len({item.sample for _, item in chosen}) == len(chosen) == min(count, 3 * each)
    kinds = [word for word, _ in chosen]
    assert kinds == sorted(kinds)
    by_kind = {word: [item.miou for kind, item in chosen if kind == word] for word in kinds}
    if count >= 3 * each:
        assert min(by_kind["best"]) >= max(by_kind["median"])
        assert min(by_kind["median"]) >= max(by_kind["worst"])
        assert scored[-1] in [item for _, item in chosen]
        assert scored[0] in [item for _, item in chosen]


def test_images_without_a_labelled_pixel_have_no_score() -> None:
    scores = ImageScores()
    scores.note_(0, torch.zeros(2, 2, dtype=torch.int64))
    scores.note_(1, torch.tensor([[3, 1], [0, 0]]))
    assert scores.of_all(ALONE) == [Scored(0.375, 1)]


def test_a_sample_that_cannot_be_read_is_shown_as_far_as_it_can(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 9, 3), 77, dtype=np.uint8)).save(tmp_path / "x.png")
    Image.fromarray(np.full((8, 9), 255, dtype=np.uint8)).save(tmp_path / "y.png")
    (tmp_path / "z.png").write_bytes(b"nothing")
    whole = np.array(unusable_sheet(Sample(str(tmp_path / "x.png"), str(tmp_path / "y.png"), "d"), "t"))
    half = np.array(unusable_sheet(Sample(str(tmp_path / "x.png"), str(tmp_path / "z.png"), "d"), "t"))
    for picture in (whole, half):
        assert (picture == 77).all(2).sum() > 10_000
    white = np.array(voc_colormap(256)[255])
    assert (whole == white).all(2).sum() > (half == white).all(2).sum()
    assert (half == 225).all(2).sum() > 10_000


# What a run keeps


def test_a_run_keeps_its_first_samples_and_its_predictions_and_they_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_pretraining(request(("method.mix.region", True), out=Path("run")))
    spaces = [load(name).labels for name in ("shapes-coarse", "shapes-fine")]
    colors = colors_of_union(LabelUnion(spaces))[len(spaces[0].classes) :]  # those of its samples
    shown = set(map(tuple, np.array(Image.open(run / "predictions" / "shapes-fine.png")).reshape(-1, 3).tolist()))
    assert len(set(colors) & shown) >= 2
    assert not shown & set(spaces[1].colors) - set(colors)
    for name in ("samples/first", "predictions/shapes-coarse", "predictions/shapes-fine"):
        assert np.array(Image.open(run / f"{name}.png")).std() > 20, name
    tuned = run_finetuning(request(out=Path("tuned"), init=str(run)))
    assert np.array(Image.open(tuned / "predictions" / "shapes-target.png")).std() > 20
    source = (tuned / "report.html").read_text()
    assert source.count("<img") == 2
    monkeypatch.setattr("mdp.io.training.context.RunContext.picture", lambda *_: None)
    unseen = run_pretraining(request(("method.mix.region", True), out=Path("unseen")))
    assert not (unseen / "predictions").exists()
    assert_same(tensors_of(unseen), tensors_of(run))
    plain = run_finetuning(request(out=Path("plain"), init=str(run)))
    assert not (plain / "predictions").exists()
    assert_same(tensors_of(plain), tensors_of(tuned))


def test_a_step_that_fails_leaves_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Diverged):
        run_pretraining(request(("pretrain.lr", 1e20), out=Path("wild")))
    assert np.array(Image.open("wild/samples/failed.png")).std() > 20
    assert Path("wild/report.html").read_text().count("<img") == 2


def test_a_sample_that_stops_a_run_is_in_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        Path(folder).mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(f"images/{i}.png")
        Image.fromarray(np.full((30, 40), 9 if i == 3 else i % 2, dtype=np.uint8)).save(f"labels/{i}.png")
    Path("own.yaml").write_text("name: own\nsplits: {train: {images: images, labels: labels}}\nclasses: {0: a, 1: b}\n")
    asked = request(("pretrain.datasets", ["own.yaml"]), ("run.check", False), out=Path("run"))
    with pytest.raises(DatasetError, match=r"3\.png: values outside"):
        run_pretraining(asked)
    page = Path("run/report.html").read_text()
    assert "The sample that stopped the run" in page
    assert "mdp check</code> on the dataset" in page
    assert "a 60%, b 40%" in page  # of the five images that can be read


def test_class_shares_are_those_of_the_images_looked_at() -> None:
    datasets = [load(name) for name in ("shapes-coarse", "shapes-fine")]
    pool = pool_of([(dataset, open_split(dataset, Path(), "train")[0]) for dataset in datasets])
    found = class_shares(pool, images=3)
    for entry, first in zip(found, (0, 400), strict=True):
        counts = np.zeros(len(entry["pixels"]), dtype=np.int64)
        for index in (first, first + 133, first + 266):
            _, labels = pool.read(index)
            offset = pool.union.classes_of(entry["name"]).start
            counts += np.array([int((labels == offset + label).sum()) for label in range(len(counts))])
        assert entry["pixels"] == counts.tolist()
        assert entry["images"] == 3
        assert entry["ignored"] + sum(entry["pixels"]) == 3 * 96 * 96
    assert class_shares(pool, hidden={0}, images=1)[0] != class_shares(pool, images=1)[0]  # another image's
    assert class_shares(pool, hidden=range(1, 400), images=3)[0]["images"] == 1


# The colours of classes


def test_a_class_has_the_same_colour_in_samples_and_predictions() -> None:
    colors = ((10, 200, 30), (250, 40, 160))
    own = LabelSpace(name="a", classes=("road", "sky"), colors=colors)
    assert colors_of_union(LabelUnion([own])) == colors_of_space(own) == colors
    bare = UNION.spaces[0]
    assert colors_of_union(LabelUnion([bare])) == colors_of_space(bare)
    several = colors_of_union(LabelUnion([own, replace(own, name="b")]))
    assert len(set(several)) == 4  # a dataset's own would be there twice
    sheet = np.array(sample_sheet([batch(2)], ["x", "y"], LabelUnion([own]), "title"))
    predicted = np.array(page([look(0, "x", torch.eye(2), *pixels(own), own)], ["1."], own, "title"))
    for color in colors:
        assert (sheet == color).all(2).any()  # of the legend
        assert (predicted == color).all(2).any()


def pixels(space: LabelSpace) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A grey photo, and a prediction and labels with all classes."""
    labels = torch.arange(len(space.classes)).repeat_interleave(20)[:, None].expand(-1, 40)
    return torch.full((3, *labels.shape), 128, dtype=torch.uint8), labels, labels
