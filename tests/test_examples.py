"""The examples run as they are."""

from pathlib import Path

import pytest

from mdp.io.recipe.layers import resolve
from mdp.io.recipe.request import Request
from mdp.io.studies import demo
from mdp.io.studies.demo import RECIPE, sentence
from tests.conftest import ROOT
from tests.preloaded import run


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_and_prints(path: Path, tmp_path: Path) -> None:
    done = run([str(path)], tmp_path)
    assert done.code == 0, done.err
    assert done.out.strip()


def test_the_demo_recipe_resolves_and_its_sentence_reads() -> None:
    assert resolve(RECIPE).finetune.target == "shapes-target"
    result = {
        "seed": 0, "scratch_miou": 0.2, "pretrained_miou": 0.25, "majority_miou": 0.07, "steps": 150,
        "images": {"train": 48, "scored": 96}, "seconds": 100.0, "run": "runs/demo/x",
    }  # fmt: skip
    text = sentence(result)
    assert "20.00" in text
    assert "(+5.00)" in text


def test_the_demo_says_where_it_is_and_gives_no_hints_that_its_reader_cannot_follow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has neither --workers nor photos that a decoder would help."""
    asked: list[Request] = []
    for name in ("run_pretraining", "run_finetuning"):
        monkeypatch.setattr(demo, name, lambda request: asked.append(request) or tmp_path)
    monkeypatch.setattr(demo, "run_report", lambda *_: None)
    scores = {"miou": 0.5, "majority": {"miou": 0.1}, "images": 96}
    monkeypatch.setattr(demo, "run_evaluation", lambda *_, **__: (scores, tmp_path))
    demo.run_demo(0, tmp_path / "demo")
    assert [request.hints for request in asked] == [False] * 3
    told = [line for line in capsys.readouterr().err.splitlines() if " of 3: " in line]
    assert [line.split(":")[0] for line in told] == ["1 of 3", "2 of 3", "3 of 3"]
    assert ["random weights" in line for line in told] == [False, True, False]
