"""Comparing starts: the arithmetic of differences and their intervals, what is claimed, and `mdp compare` itself."""

import json
import os
import runpy
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.comparison import block_counts, count_miou, difference
from mdp.core.metrics import mean_iou
from mdp.io.errors import Preempted, RecipeError
from mdp.io.journal.journal import Journal
from mdp.io.pictures.charts import Line, Panel, line_chart, ticks
from mdp.io.recipe.request import Request
from mdp.io.report.compared import comparisons, contrasts, curves, hours_chart, read_comparison, report, seen
from mdp.io.studies.compare import Comparison, parse_shares, parse_start, run_comparison
from mdp.io.studies.hours import hours_behind, training_hours
from mdp.io.training.job import run_pretraining
from tests.conftest import ROOT
from tests.laws import pure_call
from tests.small_runs import TINY, PlainRuns, request
from tests.tensors import rng_of, seeds

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")


def counts_of(rng: torch.Generator, seed_count: int, blocks: int, classes: int) -> Tensor:
    confusions = torch.randint(1, 50, (seed_count, blocks, classes, classes), generator=rng)
    return block_counts(confusions)


# mdp.core.comparison


@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_counts_give_the_miou_of_the_summed_confusion_matrix(seed: int, classes: int, blocks: int) -> None:
    confusions = torch.randint(0, 9, (blocks, classes, classes), generator=rng_of(seed))
    counts = pure_call(block_counts, confusions)
    score = float(pure_call(count_miou, counts.sum(0)))
    expected = mean_iou(confusions.sum(0))
    assert score == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_by_hand_the_miou_of_two_classes() -> None:
    assert float(count_miou(block_counts(torch.tensor([[3, 1], [0, 4]])))) == pytest.approx((3 / 4 + 4 / 5) / 2)


@given(seeds, st.integers(1, 4), st.integers(1, 6), st.integers(1, 4))
def test_swapping_the_two_turns_the_difference_round(seed: int, number: int, blocks: int, classes: int) -> None:
    rng = rng_of(seed)
    a, b = counts_of(rng, number, blocks, classes), counts_of(rng, number, blocks, classes)
    one = pure_call(difference, a, b, rng_of(1), 50)
    other = difference(b, a, rng_of(1), 50)
    assert one.mean == pytest.approx(-other.mean)
    assert one.low == pytest.approx(-other.high)
    assert one.low <= one.high


@given(seeds, st.integers(1, 4), st.integers(1, 6))
def test_a_start_does_not_differ_from_itself(seed: int, number: int, blocks: int) -> None:
    a = counts_of(rng_of(seed), number, blocks, 3)
    assert difference(a, a, rng_of(0), 20) == (0, 0, 0)


def test_one_seed_and_one_block_have_an_interval_of_no_width() -> None:
    a, b = counts_of(rng_of(0), 1, 1, 3), counts_of(rng_of(1), 1, 1, 3)
    found = difference(a, b, rng_of(0), 20)
    assert found.low == pytest.approx(found.mean)
    assert found.high == pytest.approx(found.mean)


def test_the_interval_holds_what_a_bootstrap_with_loops_gives() -> None:
    rng = rng_of(3)
    a, b = counts_of(rng, 3, 4, 2), counts_of(rng, 3, 4, 2)
    found = difference(a, b, rng_of(0), 4000)
    draws, means = rng_of(9), []
    for _ in range(4000):
        chosen = torch.randint(3, (3,), generator=draws)
        drawn = torch.randint(4, (4,), generator=draws)
        gaps = [float(count_miou(a[s][drawn].sum(0)) - count_miou(b[s][drawn].sum(0))) for s in chosen.tolist()]
        means.append(sum(gaps) / 3)
    low, high = torch.quantile(torch.tensor(means), torch.tensor([0.025, 0.975])).tolist()
    width = high - low
    assert abs(found.low - low) < 0.1 * width
    assert abs(found.high - high) < 0.1 * width


def test_counts_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in seeds"):
        difference(torch.ones(3, 2, 2, 3), torch.ones(2, 2, 2, 3), rng_of(0))


# What is claimed


def cell(start: str, seed: int, hits: int, share: str = "1/8") -> dict[str, Any]:
    """A cell whose IoU of both classes is about `hits` percent, alike in every block but for the seed."""
    block = [[hits + seed, 100, hits + seed], [hits + seed, 100, hits + seed]]
    miou = (hits + seed) / 100
    return {
        "start": start, "seed": seed, "share": share, "train_images": 6, "images": 20, "miou": miou,
        "majority_miou": 0.1, "blocks": [block] * 5, "curve": [[10, miou / 2], [20, miou]],
    }  # fmt: skip


def whole(*cells: dict[str, Any]) -> dict[str, Any]:
    names = dict.fromkeys(c["start"] for c in cells)
    return {
        "target": "t", "split": "val", "against": ["scratch"], "starts": dict.fromkeys(names, ""),
        "recipe": {"finetune": {"steps": 20, "batch_size": 4}}, "cells": list(cells),
    }  # fmt: skip


def test_starts_that_were_scored_with_the_same_photos_of_their_training_share_a_warning() -> None:
    cells = [
        {**cell(name, 0, 30), "seen": words} for name, words in (("a", "one"), ("b", ""), ("c", "one"), ("d", "two"))
    ]
    assert seen(whole(*cells)) == ["a, c: one", "d: two"]


def test_an_order_is_claimed_only_outside_the_spread_and_from_three_seeds_on() -> None:
    scratch = [cell("scratch", seed, 30) for seed in range(3)]
    far = [cell("far", seed, 40) for seed in range(3)]
    near = [cell("near", seed, 30) for seed in (2, 1, 0)]
    below = [cell("below", seed, 20) for seed in range(3)]
    text = whole(*scratch, *far, *near, *below)
    assert {c.start: c.order for c in contrasts(text)} == {"far": 1, "near": 0, "below": -1}
    assert (
        "With 1/8 of the labels: far above scratch; below below scratch; near not to be told from scratch."
        in report(text)
    )
    two = whole(*scratch[:2], *far[:2])
    assert [c.order for c in contrasts(two)] == [0]
    assert "fewer than 3 seeds" in report(two)


def test_the_table_says_mean_and_deviation() -> None:
    text = report(whole(*(cell("scratch", seed, 30) for seed in range(3))))
    assert "31.00 ± 1.00 (3)" in text
    assert "1/8 (6 images)" in text
    assert "always the same class" in text


def test_differences_pair_only_the_seeds_that_both_have() -> None:
    found = list(contrasts(whole(cell("scratch", 1, 30), *(cell("a", seed, 40) for seed in range(3)))))
    assert [c.seeds for c in found] == [1]
    assert found[0].difference.mean == pytest.approx(0.1, abs=0.02)


def test_a_file_that_is_no_comparison_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text("[]")
    with pytest.raises(RecipeError, match=r"expected a compare\.json"):
        read_comparison(tmp_path / "compare.json")
    with pytest.raises(RecipeError, match=r"expected a compare\.json"):
        read_comparison(tmp_path / "nothing.json")


def test_a_folder_stands_for_its_comparison_or_for_all_of_them(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="found no JSON file"):
        comparisons(tmp_path)
    for name in ("b.json", "a.json"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in comparisons(tmp_path)] == ["a.json", "b.json"]
    (tmp_path / "compare.json").write_text("{}")
    assert comparisons(tmp_path) == [tmp_path / "compare.json"]
    assert comparisons(tmp_path / "b.json") == [tmp_path / "b.json"]


@pytest.mark.parametrize(("page", "count"), [("study", 4), ("pixel-contrast", 3), ("unlabelled/fcn", 2)], ids=str)
def test_a_studys_tables_are_what_its_raw_files_give(page: str, count: int) -> None:
    pages = [ROOT / "docs" / f"{page.partition('/')[0]}.md", ROOT / "docs" / "log.md"]  # which has the older ones
    text = "".join(path.read_text() for path in pages)
    files = comparisons(ROOT / "docs" / page)
    assert len(files) >= count
    for file in files:
        assert report(read_comparison(file)) in text, file.name


def test_the_retrieval_study_s_tables_are_what_its_raw_file_gives() -> None:
    table = runpy.run_path(str(ROOT / "examples" / "study" / "unlabelled.py"))["table"]
    found = json.loads((ROOT / "docs" / "unlabelled" / "retrieval.json").read_text())
    for target in ("msrc", "camvid"):
        assert table(found, target) in (ROOT / "docs" / "unlabelled.md").read_text()


# Charts


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_the_numbers_and_are_few(low: float, span: float) -> None:
    found = ticks(low, low + span)
    step = found[1] - found[0]
    slack = 1e-5 * max(step, 1.0, abs(low), span)
    assert found[0] <= low + slack
    assert found[-1] >= low + span - slack
    assert 2 <= len(found) <= 8


def test_a_chart_is_well_formed_and_names_its_lines() -> None:
    band = np.array([(-1.0, 1.0)] * 2)
    lines = [Line(f"start <{i}>", i, np.array([0.0, 10.0]), np.array([i, i + 1.0]), band=band + i) for i in range(10)]
    root = ElementTree.fromstring(line_chart([Panel("a & b", lines)], "title", "step", "mIoU, %"))
    text = " ".join(root.itertext())
    assert all(f"start <{i}>" in text for i in range(10))
    assert "a & b" in text
    strokes = {(e.get("stroke"), e.get("stroke-dasharray")) for e in root.iter() if e.find("{*}title") is not None}
    assert len(strokes - {(None, None)}) == 10  # the picture itself has a title too
    with pytest.raises(ValueError, match="nothing to draw"):
        line_chart([Panel("", [])], "", "", "")


def test_hours_of_training_stand_beside_the_scores_where_all_of_them_are_known() -> None:
    quick, slow, untold = ([cell(name, seed, 30) for seed in range(2)] for name in ("scratch", "slow", "untold"))
    assert "hours of training" not in report(whole(*quick))
    assert hours_chart(whole(*quick)) == ""
    for seed in range(2):
        quick[seed]["hours"] = {"pretraining": 0.0, "finetuning": 1.0 + seed}
        slow[seed]["hours"] = {"pretraining": 5.0, "finetuning": 1.0}
        untold[seed]["hours"] = {"pretraining": None, "finetuning": 1.0}
    text = report(whole(*quick, *slow, *untold)).splitlines()
    assert [line.split() for line in text[-3:]] == [
        ["scratch", "0", "+", "1.5"],
        ["slow", "5", "+", "1"],
        ["untold", "-"],
    ]
    root = ElementTree.fromstring(hours_chart(whole(*quick, *slow, *untold)))
    dots = {e.findtext("{*}title"): float(e.get("cx", "nan")) for e in root.iter() if e.tag.endswith("circle")}
    assert list(dots) == ["scratch", "slow"]
    assert dots["scratch"] < dots["slow"]


def test_hours_are_the_journals_and_a_step_that_was_done_twice_counts_once(tmp_path: Path) -> None:
    steps = [(1, 2.0), (2, 1.0), (2, 4.0)]  # images a second
    rows = [json.dumps({"kind": "train", "step": step, "images_per_second": rate}) for step, rate in steps]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert training_hours(tmp_path, 8) == pytest.approx((8 / 2 + 8 / 4) / 3600)
    assert training_hours(tmp_path / "none", 8) is None
    assert hours_behind(None) == 0
    assert hours_behind(tmp_path / "metrics.jsonl") is None


def test_the_curves_hold_every_start_and_share() -> None:
    svg = curves(whole(cell("scratch", 0, 30), cell("ours", 0, 40), cell("ours", 0, 40, share="1")))
    assert svg.count("</title></path>") == 3
    ElementTree.fromstring(svg)


# mdp compare


def test_starts_are_read_and_mistakes_named() -> None:
    start = parse_start("ours=run:runs/x-{seed}?finetune.lr=0.5&finetune.load=[backbone]")
    assert (start.name, start.kind, start.init(3)) == ("ours", "run", "runs/x-3")
    assert start.settings == {"finetune": {"lr": 0.5, "load": ["backbone"]}}
    assert parse_start("scratch")[:3] == ("scratch", "scratch", "")
    assert parse_start("weights:/a/resnet.pth").name == "resnet"
    assert parse_start("imagenet:r.pth").settings == {"finetune": {"load": ["backbone"]}}
    with pytest.raises(RecipeError, match="expected a name of letters"):
        parse_start("../up=scratch")
    for wrong in ("scratch:x", "run:", "run", "x=y", "file:x", ""):
        with pytest.raises(RecipeError, match="expected scratch, run:FOLDER"):
            parse_start(wrong)


def test_fractions_are_read_and_mistakes_named() -> None:
    assert parse_shares("1/8, 1/4,1") == (Fraction(1, 8), Fraction(1, 4), Fraction(1))
    for wrong in ("", "0", "2", "a", "1/0", "1,1"):
        with pytest.raises(RecipeError, match="--fractions"):
            parse_shares(wrong)


def asked(*starts: str, shares: str = "1/4,1", number: int = 2, **others: Any) -> Comparison:
    values = {"split": None, "against": (), "keep": False, **others}
    return Comparison(
        starts=tuple(parse_start(text) for text in starts), shares=parse_shares(shares), seeds=number, **values
    )


def test_a_comparison_has_every_cell_and_runs_none_twice(
    monkeypatch: pytest.MonkeyPatch, plain_runs: PlainRuns
) -> None:
    plain_runs("pretrain", Path("pre"))
    starts = asked("scratch", "ours=run:pre")
    folder = run_comparison(request(out=Path("cmp")), starts)
    found = read_comparison(folder / "compare.json")
    assert {(c["start"], c["share"], c["seed"]) for c in found["cells"]} == {
        (start, share, seed) for start in ("scratch", "ours") for share in ("1/4", "1") for seed in range(2)
    }
    assert {c["train_images"] for c in found["cells"]} == {12, 48}
    assert all([step for step, _ in c["curve"]] == [4, 6] for c in found["cells"])
    assert not list(folder.rglob("*.safetensors"))
    assert all((c["hours"]["pretraining"] > 0) == (c["start"] == "ours") for c in found["cells"])
    assert all(c["hours"]["finetuning"] > 0 for c in found["cells"])
    before = (folder / "compare.json").read_text()
    monkeypatch.setattr("mdp.io.studies.compare.run_finetuning", lambda _: pytest.fail("a cell ran twice"))
    run_comparison(request(out=Path("cmp")), starts)
    assert (folder / "compare.json").read_text() == before
    assert (folder / "compare.txt").read_text() == report(found) + "\n"
    ElementTree.fromstring((folder / "curves.svg").read_text())


def test_a_comparison_that_was_stopped_goes_on_and_ends_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = asked("scratch", shares="1", number=2)
    whole_run = run_comparison(request(out=Path("whole")), starts)
    original = Journal.progress
    seen: list[int] = []

    def progress(self: Journal, done: int, *rest: Any) -> None:
        original(self, done, *rest)
        seen.append(done)
        if len(seen) == 8:  # in the second cell, after two steps
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Journal, "progress", progress)
    with pytest.raises(Preempted, match="the same command goes on"):
        run_comparison(request(out=Path("cut")), starts)
    assert len(json.loads(Path("cut/compare.json").read_text())["cells"]) == 1
    folder = run_comparison(request(out=Path("cut")), starts)
    cut, uncut = (read_comparison(path / "compare.json")["cells"] for path in (folder, whole_run))
    assert [{**c, "hours": None} for c in cut] == [{**c, "hours": None} for c in uncut]
    assert len(seen) == 12  # no step was run twice


def test_what_a_kill_before_the_first_checkpoint_left_is_run_again() -> None:
    (Path("cut") / "cells" / "scratch" / "1-1_seed0" / "checkpoints").mkdir(parents=True)
    folder = run_comparison(request(out=Path("cut")), asked("scratch", shares="1", number=1))
    assert len(read_comparison(folder / "compare.json")["cells"]) == 1


def test_cells_of_other_settings_are_never_mixed_in(plain_runs: PlainRuns) -> None:
    plain_runs("pretrain", Path("pre"))
    one = asked("scratch", "ours=run:pre", shares="1", number=1)
    run_comparison(request(out=Path("cmp")), one)
    with pytest.raises(RecipeError, match=r"other settings \(recipe.finetune.steps\)"):
        run_comparison(request(("finetune.steps", 5), out=Path("cmp")), one)
    with pytest.raises(RecipeError, match=r"other settings \(recipe.criterion\)"):
        run_comparison(request(("criterion.name", "focal"), out=Path("cmp")), one)
    run_pretraining(request(("run.seed", 5), out=Path("pre"), overwrite=True))
    with pytest.raises(RecipeError, match=r"other settings \(sha256\)"):
        run_comparison(request(out=Path("cmp")), one)
    with pytest.raises(RecipeError, match=r"other settings \(recipe.eval.split\)"):
        run_comparison(request(out=Path("cmp")), replace(one, split="train"))


def test_starts_of_other_networks_are_refused() -> None:
    run_pretraining(request(("model.width", 12), out=Path("wide")))
    layer = {key: value for key, value in TINY.items() if key != "model"}
    model = {"model": {**TINY["model"], "width": 8}}
    with pytest.raises(RecipeError, match="differ in model"):
        run_comparison(
            Request(layers=(layer,), quiet=True, out=Path("cmp")), asked("scratch", "wide=run:wide", shares="1")
        )
    with pytest.raises(RecipeError, match="two starts have the same name"):
        run_comparison(replace(request(out=Path("cmp")), layers=(TINY, model)), asked("scratch", "scratch"))
    with pytest.raises(RecipeError, match="--against other"):
        run_comparison(request(out=Path("cmp")), asked("scratch", against=("other",)))
