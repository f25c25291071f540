"""Class activation maps of a run's own classifier: red where a class is, drawn for runs that have a classifier."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mdp.core.geometry import Grid
from mdp.io.pictures.activation_maps import Classified, activation_sheet, class_panels
from mdp.io.recipe.layers import merge, nest
from mdp.io.recipe.request import Request
from mdp.io.report.activations import draw_activations
from mdp.io.report.job import run_report
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.small_runs import TINY, request

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")


def test_a_photo_is_red_where_its_class_is_and_grey_elsewhere() -> None:
    photo = np.full((32, 48, 3), 100, dtype=np.uint8)
    features = torch.zeros(2, 2, 3)  # cells of 16 pixels
    features[0, 0, 2] = 4.0  # the first speaks for class 0, at the top right
    features[1, 1, 0] = 9.0
    seen = Classified(photo, features, Grid(16, 8), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2))
    panels = class_panels(seen, torch.tensor([True, False]), ("a", "b"))
    assert [caption for caption, _ in panels] == ["photo", "a", "best score: b"]
    hot, other = panels[1][1].astype(int), panels[2][1].astype(int)
    assert hot[4, 44].tolist() == pytest.approx([180, 52, 64], abs=2)
    assert hot[28, 4].tolist() == [100, 100, 100]
    assert other[28, 4, 0] > 150
    assert other[4, 44].tolist() == [100, 100, 100]
    sheet = activation_sheet([("photo.jpg", panels)], "title")
    assert sheet.width > 3 * 200


def test_a_fine_tuned_and_a_supervised_run_are_drawn_once_and_shown() -> None:
    tuned = run_finetuning(request(("finetune.steps", 1), init="scratch"))
    said: list[str] = []
    page = run_report([tuned], None, said.append)
    assert said == []
    assert "own classifier finds classes" in page.read_text()
    with Image.open(tuned / "activations.png") as picture:
        assert picture.height > 8 * 100
    before = (tuned / "activations.png").stat().st_mtime_ns
    assert draw_activations(tuned) == ""
    assert (tuned / "activations.png").stat().st_mtime_ns == before
    layer = merge({key: value for key, value in TINY.items() if key != "method"}, nest("method.name", "supervised"))
    supervised = run_pretraining(Request(layers=(layer, nest("pretrain.steps", 1)), quiet=True))
    assert draw_activations(supervised) == ""
    assert (supervised / "activations.png").is_file()


def test_a_run_without_a_classifier_has_no_picture_and_photos_that_are_gone_are_told(tmp_path: Path) -> None:
    run = run_pretraining(request(("pretrain.steps", 1)))
    assert draw_activations(run) == ""
    assert not (run / "activations.png").exists()
    assert draw_activations(tmp_path / "nowhere").startswith("no activation maps: ")
