"""Names of files that are not UTF-8: whatever they are of, they work, and are printed and written as they are."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdp.io.evaluation.job import run_evaluation
from mdp.io.files.strict_yaml import dump_yaml, load_yaml
from mdp.io.report.job import run_report
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.preloaded import run
from tests.small_runs import TINY, request
from tests.test_distributed import environment

pytestmark = [
    pytest.mark.usefixtures("in_an_empty_folder"),
    pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names"),
]
ODD = os.fsdecode(b"a\xff")


def test_config_data_and_run_folder_of_a_command_may_have_any_name() -> None:
    Path(f"{ODD}.yaml").write_text(dump_yaml(TINY))
    Path(f"data{ODD}").mkdir()
    words = ["pretrain", "--config", f"{ODD}.yaml", "--root", f"data{ODD}", "--out", f"run{ODD}", "--steps", "2"]
    done = run(["-m", "mdp", *words], Path(), **environment())
    assert (done.code, done.out) == (0, f"run{ODD}\n"), done.err
    folder = Path(f"run{ODD}")
    assert os.fsencode(f"--out 'run{ODD}'") in (folder / "command.txt").read_bytes()
    assert load_yaml(folder / "config.yaml")["data"]["root"] == f"data{ODD}"


def test_photos_and_label_maps_may_have_any_name() -> None:
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        Path(f"own{ODD}", kind).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 2, (40, 40) if kind == "labels" else (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(f"own{ODD}/{kind}/{number}{ODD}.png")
    own = f"own{ODD}/own.yaml"
    Path(own).write_text(
        "name: own\nclasses: {0: a, 1: b}\nsplits:\n"
        "  train: {images: images, labels: labels}\n  val: {images: images, labels: labels}\n"
    )
    first = run_pretraining(request(("pretrain.datasets", [own]), ("pretrain.steps", 2), out=Path(f"first{ODD}")))
    asked = [("finetune.target", own), ("finetune.steps", 2)]
    tuned = run_finetuning(request(*asked, init=str(first), out=Path(f"tuned{ODD}")))
    scores, _ = run_evaluation(request(init=str(tuned)), "last", keep=True, gallery=2)
    assert scores["images"] == 4
    page = run_report([first, tuned], None)
    assert b"first" in page.read_bytes()
