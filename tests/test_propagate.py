"""`mdp propagate`: a square that moves over a video is followed by its colour, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.files.label_maps import read_labels
from mdp.io.unsupervised.asked import Propagation
from mdp.io.unsupervised.propagate import propagation_table, run_propagation
from tests.preloaded import run

LAYER = {"run": {"workers": 0, "threads": 1}}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of 96 x 64 pixels in which a red square (7) goes right and a green one (9) stays; 255 in a corner."""
    folder = tmp_path_factory.mktemp("video")
    for number in range(4):
        mask = np.zeros((64, 96), dtype=np.uint8)
        mask[8:32, 8 + 8 * number : 32 + 8 * number], mask[40:64, 56:88] = 7, 9
        colors = np.zeros((256, 3), dtype=np.uint8)
        colors[[0, 7, 9]] = (90, 90, 160), (220, 20, 20), (20, 220, 20)
        for kind, picture in (("frames", colors[mask]), ("masks", mask.copy())):
            (folder / kind).mkdir(exist_ok=True)
            if kind == "masks":
                picture[60:, :4] = 255
            Image.fromarray(picture).save(folder / kind / f"{number:05d}.png")
    return folder


def asked(video: Path, **more: Any) -> Propagation:
    return Propagation(**{"source": "colors", "frames": video / "frames", "masks": video / "masks", "size": 64,
                    "neighbours": 3, **more})  # fmt: skip


def test_squares_are_followed_by_their_colors_and_void_pixels_are_in_no_mask(video: Path, tmp_path: Path) -> None:
    scores = run_propagation(asked(video, out=tmp_path / "out"), LAYER, quiet=True)
    assert (scores["frames"], scores["scored_frames"]) == (4, 3)
    assert [row["object"] for row in scores["objects"]] == [7, 9]
    assert min(row[key] for row in scores["objects"] for key in ("j", "f")) > 0.75
    written = [read_labels(str(tmp_path / "out" / f"{number:05d}.png")) for number in range(4)]
    with Image.open(tmp_path / "out" / "00000.png") as picture:
        assert picture.mode == "P"
    assert [np.unique(ids).tolist() for ids in written] == [[0, 7, 9]] * 4
    assert [int(np.nonzero((ids == 7).any(0))[0].mean()) for ids in written] == pytest.approx([19, 27, 35, 43], abs=3)
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores
    assert propagation_table(scores).splitlines()[-3] == "4 frames, of which 3 after the first have a mask"
    # kept as it is, the red square is met by 16, 8 and 0 of its 24 columns, the green one by all
    assert scores["still"]["objects"][0]["j"] == pytest.approx((16 / 32 + 8 / 40 + 0) / 3)
    assert scores["still"]["j"] == pytest.approx((7 / 30 + 1) / 2)


def test_frames_without_masks_are_labelled_and_not_scored(video: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "00000.png").write_bytes((video / "masks" / "00000.png").read_bytes())
    scores = run_propagation(asked(video, masks=tmp_path / "first", out=tmp_path / "out"), LAYER, quiet=True)
    assert (scores["scored_frames"], scores["j"], scores["objects"][0]["f"]) == (0, None, None)
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"frames": "none"}, DatasetError, "--frames .*none: expected a folder, found none"),
        ({"frames": "empty"}, DatasetError, "expected two photos or more, found 0"),
        ({"masks": "empty"}, DatasetError, "00000.png: expected the mask of the first frame, found none"),
        ({"masks": "small"}, DatasetError, "00000.png: it is 96 x 64, and the mask of the first frame 9 x 9"),
        ({"masks": "blank"}, DatasetError, "the mask of the first frame has no object"),
        ({"neighbours": 999}, RecipeError, "--neighbours: k: expected 1 to 92, the cells that are asked, got 999"),
        ({"out": "masks"}, RecipeError, "it is the folder of --masks; choose another"),
    ],
    ids=["no-folder", "no-frames", "no-mask", "size", "no-object", "neighbours", "out"],
)
def test_what_cannot_be_propagated_is_refused_in_one_line(
    video: Path, change: dict[str, Any], error: type[MdpError], words: str
) -> None:
    for name, size in (("small", 9), ("blank", 0)):
        (video / name).mkdir(exist_ok=True)
        mask = np.full((size, size), 3, dtype=np.uint8) if size else np.zeros((64, 96), dtype=np.uint8)
        Image.fromarray(mask).save(video / name / "00000.png")
    (video / "empty").mkdir(exist_ok=True)
    given = {key: value if key == "neighbours" else video / value for key, value in change.items()}
    with pytest.raises(error, match=words):
        run_propagation(asked(video, **given), LAYER, quiet=True)


def test_the_command_prints_a_table(video: Path) -> None:
    words = ["-m", "mdp", "propagate", "colors", "--frames", "frames", "--masks", "masks", "--size", "64"]
    done = run(words, video)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].split() == ["object", "J", "F"]
    assert "4 frames, 2 objects" in done.err
