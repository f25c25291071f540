"""`mdp suspects`: planted mistakes are the first ones, of a few images whose colours are their classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdp.io.errors import CheckpointError, MdpError, Preempted, RecipeError
from mdp.io.processes import signals
from mdp.io.recipe.layers import Layer, merge, nest
from mdp.io.recipe.request import Request
from mdp.io.suspects.asked import SuspectsQuestion
from mdp.io.suspects.job import run_suspects, suspects_table
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.preloaded import run
from tests.small_runs import TINY, request
from tests.trees import lines

COLORS = np.array([(90, 90, 90), (200, 30, 30), (30, 200, 30), (30, 30, 200)])
CLASSES = ("background", "red", "green", "blue")
SWAPPED, FORGOTTEN, MOVED, UNNAMED = "03", "05", "07", "02"
pytestmark = pytest.mark.usefixtures("bare_runs")


def write(folder: Path) -> Path:
    """Ten photos of three boxes on grey, and their label maps, four of which are wrong."""
    for number in range(10):
        name, rng = f"{number:02}", np.random.default_rng(number)
        ids = np.zeros((96, 128), dtype=np.uint8)
        for label, (top, left) in enumerate(((16, 16), (48, 48), (16, 80)), 1):
            down, right = rng.integers(-3, 4, 2)
            ids[top + down : top + down + 32, left + right : left + right + 32] = label
        photo = (COLORS[ids] + rng.integers(-12, 12, (96, 128, 3))).clip(0, 255).astype(np.uint8)
        labels = ids.copy()
        if name == SWAPPED:
            labels[ids == 1], labels[ids == 2] = 2, 1
        if name == FORGOTTEN:
            labels[ids == 3] = 0
        if name == UNNAMED:
            labels[ids == 1] = 255
        if name == MOVED:
            labels = np.roll(ids, (0, 6), (0, 1))
        for kind, picture in (("images", photo), ("labels", labels)):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    classes = ", ".join(f"{number}: {name}" for number, name in enumerate(CLASSES))
    text = [
        "name: boxes",
        f"classes: {{{classes}}}",
        "ignore_index: 255",
        "splits:",
        "  train: {images: images, labels: labels}",
    ]
    lines(folder / "boxes.yaml", text)
    return folder / "boxes.yaml"


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("boxes"))


def asked(boxes: Path, **more: Any) -> SuspectsQuestion:
    return SuspectsQuestion(**{"source": "colors", "target": str(boxes), "folds": 2, "size": 128, **more})


LAYER: Layer = {"run": {"workers": 0, "threads": 1}}


@pytest.fixture(scope="module")
def by_colors(boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("out")
    return run_suspects(asked(boxes, out=out), LAYER, quiet=True)[0], out


def stem(item: dict[str, Any]) -> str:
    return Path(item["image"]).stem


def test_planted_mistakes_of_each_kind_are_the_first_of_their_list(by_colors: tuple[dict[str, Any], Path]) -> None:
    facts, _ = by_colors
    assert {stem(item) for item in facts["images"][:2]} == {SWAPPED, FORGOTTEN}
    first = next(item for item in facts["regions"] if stem(item) == SWAPPED)
    assert (first["label"], first["guess"]) in {("red", "green"), ("green", "red")}
    forgotten = {stem(item): item for item in reversed(facts["forgotten"])}
    assert (forgotten[FORGOTTEN]["label"], forgotten[FORGOTTEN]["guess"]) == ("background", "blue")
    assert (forgotten[UNNAMED]["label"], forgotten[UNNAMED]["guess"]) == (None, "red")
    left, top, width, height = forgotten[UNNAMED]["box"]
    assert abs(left - 16) <= 12 >= abs(top - 16)
    assert 16 <= width <= 48 >= height >= 16
    assert stem(facts["shifted"][0]) == MOVED
    assert abs(facts["shifted"][0]["right"] + 6) <= 1 >= abs(facts["shifted"][0]["down"])
    mixed = next(pair for pair in facts["confusions"] if (pair["first"], pair["second"]) == ("red", "green"))
    assert mixed["images"] >= 2  # in one image both classes are mostly called the other
    assert facts["out_of_fold"] is True


def test_json_and_page_hold_what_is_returned(by_colors: tuple[dict[str, Any], Path]) -> None:
    facts, out = by_colors
    assert json.loads((out / "suspects.json").read_text()) == json.loads(json.dumps(facts))
    page = (out / "suspects.html").read_text()
    assert page.count("<figure>") == page.count('<img alt="')
    assert page.count('alt="edges of ') == 10  # maps that may be moved: half of 24, and there are ten
    text = suspects_table(facts)
    assert "background -> blue" in text
    assert "no label -> red" in text


def test_the_same_call_gives_the_same_and_other_folds_another(
    boxes: Path, by_colors: tuple[dict[str, Any], Path]
) -> None:
    again, folder = run_suspects(asked(boxes), LAYER, quiet=True)
    assert folder is None  # of colors there is no run to write to
    assert again == by_colors[0]
    other = run_suspects(asked(boxes, folds=5), LAYER, quiet=True)[0]
    assert other["images"] != again["images"]


def test_a_fine_tuned_run_doubts_by_its_softmax_and_says_what_it_has_seen(
    boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = (("finetune.target", str(boxes)), ("finetune.validate_steps", 0))
    folder = run_finetuning(request(*target, init="scratch", out=tmp_path / "run"))
    facts, out = run_suspects(asked(boxes, source=str(folder), folds=None), LAYER)
    assert out == folder / "suspects" / "boxes-train"
    assert facts["out_of_fold"] is False
    assert facts["seen"].startswith("10 of the 10 photos")
    assert "a model agrees with labels it has learnt: give --folds 5" in capsys.readouterr().err
    other = boxes.parent / "others.yaml"
    other.write_text(boxes.read_text().replace("blue", "violet"))
    with pytest.raises(CheckpointError, match="class 3 is 'blue' there, 'violet' here"):
        run_suspects(asked(other, source=str(folder), folds=None), LAYER, quiet=True)


def test_a_pretraining_run_doubts_by_its_prototypes_and_only_what_it_knows(boxes: Path, tmp_path: Path) -> None:
    layer = merge(TINY, nest("pretrain.datasets", [str(boxes), "shapes-coarse"]), nest("pretrain.steps", 3))
    folder = run_pretraining(Request(layers=(layer,), quiet=True, out=tmp_path / "run"))
    facts = run_suspects(asked(boxes, source=str(folder), folds=None), LAYER, quiet=True)[0]
    assert len(facts["images"]) == 10
    assert {item["guess"] for item in facts["regions"]} <= set(CLASSES)
    with pytest.raises(CheckpointError, match="pretrained on boxes, shapes-coarse, so that it has no prototypes of "):
        run_suspects(asked(boxes, source=str(folder), target="shapes-target", folds=None), LAYER, quiet=True)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"target": "imagenet_s50:train"},
            RecipeError,
            "the split train has no label maps to doubt; with labels it has ",
        ),
        ({"target": "BOXES:tarin"}, RecipeError, "unknown split 'tarin'"),
        ({"target": "boxs"}, RecipeError, "boxs"),
        ({"folds": 11}, RecipeError, "--folds: expected 2 to 10, one thing in each at least, got 11"),
        (
            {"folds": None},
            CheckpointError,
            "colors: expected a run folder or a checkpoint, found nothing; with --folds",
        ),
    ],
    ids=["unlabelled", "split", "dataset", "folds", "no-run"],
)
def test_what_cannot_be_doubted_is_refused_in_one_line(
    boxes: Path, change: dict[str, Any], error: type[MdpError], words: str
) -> None:
    if "target" in change:
        change = {"target": change["target"].replace("BOXES", str(boxes))}
    with pytest.raises(error, match=words):
        run_suspects(asked(boxes, **change), LAYER, quiet=True)


def test_a_stopped_search_writes_nothing(boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals.Stop, "__bool__", lambda self: True)
    with pytest.raises(Preempted, match="nothing was written, run the same command again"):
        run_suspects(asked(boxes, out=tmp_path / "out"), LAYER, quiet=True)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_suspects(boxes: Path, tmp_path: Path) -> None:
    words = ["-m", "mdp", "suspects", "colors", "--target", str(boxes), "--folds", "2", "--workers", "0"]
    done = run([*words, "--size", "128", "--out", "here"], tmp_path)
    assert done.code == 0, done.err
    assert done.out.startswith("boxes train: 10 images, doubted out of fold")
    assert "written to here: suspects.json and suspects.html" in done.err
    assert (tmp_path / "here" / "suspects.html").is_file()
