"""`mdp retrieve`: whole retrievals on a few images whose colours are their classes, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.processes import signals
from mdp.io.unsupervised.asked import Retrieval
from mdp.io.unsupervised.retrieve import retrieval_table, run_retrieval
from tests.preloaded import run
from tests.trees import lines

COLORS = np.array([(0, 0, 0), (200, 30, 30), (30, 200, 30), (30, 30, 200)])
LAYER = {"run": {"workers": 0, "threads": 1}, "model": {"backbone": "resnet18", "width": 8}}


def write_split(folder: Path, split: str, pairs: list[tuple[int, int]]) -> None:
    """Images of 48 x 32 pixels, the left half of one class and the right one of another."""
    for number, pair in enumerate(pairs):
        ids = np.repeat(np.array(pair), 24)[None].repeat(32, 0).astype(np.uint8)
        noise = np.random.default_rng(number).integers(-20, 20, (32, 48, 3))
        for kind, picture in (("images", (COLORS[ids] + noise).clip(0, 255).astype(np.uint8)), ("labels", ids)):
            path = folder / kind / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose validation images have a pair of classes that no training image has; 0 is ignored."""
    folder = tmp_path_factory.mktemp("own")
    write_split(folder, "train", [(1, 2), (2, 1), (3, 2), (1, 0)])
    write_split(folder, "val", [(3, 1), (2, 3), (0, 1)])
    splits = [f"  {split}: {{images: images/{split}, labels: labels/{split}}}" for split in ("train", "val")]
    lines(folder / "own.yaml", ["classes: {1: red, 2: green, 3: blue}", "ignore: [0]", "splits:", *splits])
    return folder / "own.yaml"


def asked(own: Path, **more: object) -> Retrieval:
    return Retrieval(**{"source": "colors", "target": str(own), "regions": 2, "size": 64, **more})  # type: ignore[arg-type]


def test_colors_name_what_is_told_by_its_color_and_the_page_shows_it(own: Path, tmp_path: Path) -> None:
    scores = run_retrieval(asked(own, out=tmp_path / "out"), LAYER, quiet=True)
    assert [scores[key] for key in ("miou", "split", "labelled_images", "labelled_regions")] == [1.0, "val", 4, 7]
    assert [row["labelled_pixels"] for row in scores["classes"]] == [2 * 32 * 24, 32 * 24, 2 * 32 * 24]
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == json.loads(json.dumps(scores))
    page = (tmp_path / "out" / "retrieval.html").read_text()
    assert page.count('<div class="queries">') == 3
    assert page.count("<img ") == 3 * 5
    assert page.count(">right<") == 3
    assert "mIoU 100.00" in retrieval_table(scores)


def test_random_weights_are_scored_twice_alike_and_by_the_seed(own: Path) -> None:
    first, again = (run_retrieval(asked(own, source="scratch"), LAYER, quiet=True) for _ in range(2))
    assert first == again
    assert first["features"] == "resnet18 of width 8 at stride 16, 64 channels"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"regions": 17}, RecipeError, "--regions 17: expected 1 to 16, the cells of an image of --size 64"),
        ({"target": "OWN:train"}, RecipeError, "train is what is searched in; ask about another split"),
        ({"target": "OWN:nowhere"}, RecipeError, "unknown split 'nowhere'"),
        ({"target": "voc"}, DatasetError, "voc"),
    ],
    ids=["regions", "train", "split", "absent"],
)
def test_what_cannot_be_retrieved_is_refused_in_one_line(
    own: Path, tmp_path: Path, change: dict[str, object], error: type[Exception], words: str
) -> None:
    if "target" in change:
        change = {"target": str(change["target"]).replace("OWN", str(own))}
    with pytest.raises(error, match=words):
        run_retrieval(asked(own, **change), {**LAYER, "data": {"root": str(tmp_path)}}, quiet=True)


def test_a_stopped_retrieval_writes_nothing(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals.Stop, "__bool__", lambda self: True)
    with pytest.raises(Preempted, match="nothing was written, run the same command again"):
        run_retrieval(asked(own, out=tmp_path / "out"), LAYER, quiet=True)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_table_and_as_json_the_scores(own: Path, tmp_path: Path) -> None:
    words = [
        "-m",
        "mdp",
        "retrieve",
        "colors",
        "--target",
        str(own),
        "--regions",
        "2",
        "--size",
        "64",
        "--workers",
        "0",
    ]
    done = run(words, tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "2 regions an image of 64 x 64, named by 7 regions of 4 labelled images"
    assert "colors: histograms of 64 colours in cells of 16 pixels" in done.err
    assert json.loads(run([*words, "--json", "-q"], tmp_path).out)["miou"] == 1
