"""The page of `mdp report`: well-formed, closed in itself, of bounded size, and right about runs of every ending."""

import base64
import hashlib
import io
import json
import os
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdp.cli import cli
from mdp.core.thinning import bucket_means, thin
from mdp.io.errors import Diverged, RecipeError, ResourceError
from mdp.io.journal.history import history
from mdp.io.pictures import charts
from mdp.io.pictures.charts import REFERENCE, Chart, Line, axis, figure, style_of
from mdp.io.report.compared import comparisons, read_comparison, report
from mdp.io.report.job import MOST, run_report
from mdp.io.report.page import page
from mdp.io.report.run_facts import read_run, unique_names
from mdp.io.report.scores import most_confused
from mdp.io.training.job import run_pretraining
from tests.laws import pure_call
from tests.small_runs import request

HOSTILE = "\udcff\"'&<img src=x onerror=alert(1)></script><script>alert(2)</script>\x1b[31m\u202e"
VOID = {"meta", "img"}
STUDY = Path(__file__).parents[1] / "docs" / "study"


class Page(HTMLParser):
    """A page taken apart; fails where tags do not close in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag}: an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert [tag] == self.open[-1:], f"</{tag}> closes nothing: open are {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def checked(place: Path) -> Page:
    """The page in a file, after the laws that every page obeys."""
    source = place.read_text(encoding="utf-8")
    found = Page(source)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert not re.search(r"https?://|url\(|@import", source)
    for tag, attributes in found.tags:
        assert tag != "img" or (attributes["alt"] and str(attributes.pop("src")).startswith("data:image/jpeg;base64,"))
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "xlink:href")], (
            tag
        )
        assert attributes.get("href", "#").startswith("#"), attributes
        assert attributes.get("href") in (None, *(f"#{name}" for name in ids))
        assert attributes.get("aria-labelledby") in (None, *ids)
    assert len(found.all("script")) == 1
    assert found.all("html")[0]["lang"] == "en"
    assert len(found.all("caption")) == len(found.all("table"))
    assert all(svg.get("aria-hidden") or (svg.get("role") == "img" and svg["aria-label"]) for svg in found.all("svg"))
    return found


def train(step: int, **values: Any) -> str:
    return json.dumps({"kind": "train", "step": step, "loss": 2 / step, "lr": 0.1 / step,
                       "images_per_second": 40.0, "data_wait": 0.25, **values})  # fmt: skip


def write_run(folder: Path, journal: list[str], **files: Any) -> Path:
    """A run folder with what a fine-tuning run has, and `name=content` in the place of NAME.json."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("\n".join(journal) + "\n" if journal else "")
    (folder / "config.yaml").write_text("run: {seed: 0, clip_norm: null}\nfinetune: {target: site, warmup_steps: 0}\n")
    (folder / "command.txt").write_text("mdp finetune --target site\n")
    (folder / "log.txt").write_text("the log's last line\n")
    contents = {
        "env": {"torch": "2.13.0"},
        "labels": [{"name": "site", "classes": ["road", "sky"], "images": 367}],
        "status": {
            "state": "done",
            "step": 3,
            "steps": 3,
            "message": "",
            "exit_code": 0,
            "time": "2026-11-20T10:00:00",
        },
        **files,
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def write_scores(run: Path, confusion: list[list[int]], names: list[str]) -> None:
    rows = [{"name": name, "iou": 0.5, "acc": 0.75, "labelled_pixels": sum(row)} for name, row in
            zip(names, confusion, strict=True)]  # fmt: skip
    scores = {"dataset": "site", "split": "val", "images": 9, "step": 3, "mode": "whole", "miou": 0.4321, "macc": 0.5,
              "aacc": 0.625, "boundary_miou": None, "miou_interval": {"low": 0.41, "high": 0.45}, "rule": "the rule",
              "majority": {"class": "road", "miou": 0.1}, "classes": rows, "confusion": confusion}  # fmt: skip
    (run / "eval" / "site-val").mkdir(parents=True)
    (run / "eval" / "site-val" / "scores.json").write_text(json.dumps(scores))


# mdp.core.thinning

finite = st.floats(-1e6, 1e6)
curves = st.lists(st.tuples(finite, finite), min_size=1, max_size=200).map(
    lambda points: np.array(sorted(points, key=lambda point: point[0]))
)


@given(curves, st.integers(1, 40))
def test_thinning_keeps_the_extremes_and_ends_of_every_bucket_and_at_most_four_points(
    points: np.ndarray, buckets: int
) -> None:
    x, y = points.T
    kept = pure_call(thin, x, y, buckets)
    assert (np.diff(kept) > 0).all()
    place = np.minimum(((x - x[0]) / max(x[-1] - x[0], 1e-300) * buckets).astype(int), buckets - 1)
    assert set(place) == set(place[kept])
    for bucket in set(place):
        own, left = np.flatnonzero(place == bucket), [k for k in kept if place[k] == bucket]
        assert 1 <= len(left) <= 4
        assert (left[0], left[-1]) == (own[0], own[-1])
        assert (y[left].min(), y[left].max()) == (y[own].min(), y[own].max())


@given(curves, st.integers(1, 40))
def test_thinning_what_is_thin_changes_nothing(points: np.ndarray, buckets: int) -> None:
    x, y = points.T
    kept = thin(x, y, buckets)
    assert thin(x[kept], y[kept], buckets).tolist() == list(range(len(kept)))


@given(curves, st.integers(1, 40))
def test_bucket_means_lie_within_the_extremes_and_one_bucket_gives_the_mean(points: np.ndarray, buckets: int) -> None:
    x, y = points.T
    across, means = pure_call(bucket_means, x, y, buckets)
    assert (np.diff(across) >= 0).all()
    assert y.min() - 1e-6 <= means.min()
    assert means.max() <= y.max() + 1e-6
    np.testing.assert_allclose(bucket_means(x, y, 1)[1], [np.mean(y)], atol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "buckets"), [([], [], 1), ([0, 1], [1], 1), ([1, 0], [1, 1], 1), ([0, 1], [1, np.nan], 1), ([0], [0], 0)]
)
def test_thinning_refuses_what_is_no_curve(x: list[float], y: list[float], buckets: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        thin(np.array(x, dtype=float), np.array(y, dtype=float), buckets)


# mdp.io.journal.history


def test_half_a_line_is_counted_and_a_step_that_was_recorded_twice_counts_as_recorded_last() -> None:
    rows = [train(1), train(2, loss=9.0), train(2, loss=None), train(2, loss=4.0), '{"kind": "tra']
    found = history(row.encode() for row in rows)
    curve = found.curves["train", "loss"]
    assert (curve.steps.tolist(), curve.values.tolist(), curve.missing) == ([1, 2], [2, 4], 0)
    assert found.damaged == 1
    assert [record["loss"] for record in found.last] == [2, 4]


@pytest.mark.parametrize("value", [b"null", b"NaN", b"Infinity", b"1e999", b"-1e300", b"1" + b"0" * 400])
def test_what_is_no_finite_number_is_left_out_and_counted(value: bytes) -> None:
    found = history(
        [b'{"kind": "train", "step": 1, "loss": 1}', b'{"kind": "train", "step": 2, "loss": ' + value + b"}"]
    )
    assert found.curves["train", "loss"].steps.tolist() == [1]
    assert found.curves["train", "loss"].missing == 1


@pytest.mark.parametrize(
    "row", [b"[]", b"1", b'{"step": 1}', b'{"kind": "train", "step": "x"}', b'{"kind": 3, "step": 1}', b"\xff\xfe",
            b'{"kind": "train", "step": true}', b'{"kind": "train", "step": -1}', b"[" * 100_000]
)  # fmt: skip
def test_lines_that_are_no_records_are_counted_and_nothing_else(row: bytes) -> None:
    found = history([row, b"\n"])
    assert (found.damaged, dict(found.curves)) == (1, {})


def test_only_the_last_steps_are_kept_whole_in_whatever_order_they_came() -> None:
    found = history(train(step).encode() for step in [*range(40, 80), *range(1, 40)])
    assert [record["step"] for record in found.last] == list(range(68, 80))


# mdp.io.pictures.charts


@given(st.floats(-1e90, 1e90), st.floats(-1e90, 1e90))
def test_an_axis_encloses_what_is_drawn(a: float, b: float) -> None:
    found = axis(min(a, b), max(a, b))
    slack = 1e-6 * max(abs(a), abs(b)) + 1e-300
    assert found.ticks[0] <= min(a, b) + slack
    assert max(a, b) - slack <= found.ticks[-1]
    assert found.ticks[0] < found.ticks[-1]


def test_no_two_of_24_runs_look_the_same() -> None:
    assert len({style_of(run) for run in [*range(MOST), REFERENCE]}) == MOST + 1


def test_a_point_is_drawn_where_its_axes_say() -> None:
    line = Line("a", 0, np.array([0.0, 100.0]), np.array([0.0, 10.0]))
    drawn = figure(Chart("t", "u", [line]), 0)
    assert 'd="M46.0 186.0L390.0 12.0"' in drawn  # from the lower left to the upper right corner of the plot
    assert 'data-values="0,0;100,10"' in drawn
    assert "from 0 at step 0 to 10 at step 100, lowest 0, highest 10" in drawn


def test_a_line_of_a_file_has_the_colour_that_it_has_on_a_page() -> None:
    style = (Path(charts.__file__).parent / "page.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--(c\d): (#[0-9a-f]{6});", style.split("@media")[0]))
    assert light == {f"c{index}": color for index, color in enumerate(charts._COLORS)}


# mdp.io.report.scores


def test_the_pairs_most_confused_are_those_with_the_most_wrong_pixels() -> None:
    pairs = most_confused([[90, 10, 0], [0, 0, 0], [3, 30, 7]])
    assert [(p.labelled, p.predicted, p.pixels, round(p.share, 3)) for p in pairs] == [
        (2, 1, 30, 0.75), (0, 1, 10, 0.1), (2, 0, 3, 0.075),
    ]  # fmt: skip
    assert most_confused([[1, 0], [0, 1]]) == []


# Whole pages


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_real_run_is_shown_with_its_curves_classes_and_settings() -> None:
    run = run_pretraining(request())
    place = run_report([run], None)
    assert place == run / "report.html"
    found = checked(place)
    headings = "Loss Learning rate Throughput Waiting for data Mean cosine between prototypes"
    for words in (*headings.split(), "shapes-fine: nearest-prototype mIoU", "always the most frequent class", "done",
                  "pretrain.batch_size", "batch_size: 4", "shapes-coarse", "pointed"):  # fmt: skip
        assert words in found.text or words == "pretrain.batch_size", words
    assert "could not be read" not in found.text
    recorded = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert f"1,{recorded:.5g}" in place.read_text()


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_run_that_diverged_is_shown_with_its_samples_and_what_to_try() -> None:
    with pytest.raises(Diverged):
        run_pretraining(request(("pretrain.lr", 1e30), out=Path("wild")))
    record = json.loads(Path("wild/diverged.json").read_text())
    found = checked(run_report([Path("wild")], None))
    assert "failed" in found.text
    assert "numbers that are not finite" in found.text
    assert record["message"] in found.text
    assert all(name in found.text for name in record["samples"])
    assert "a smaller --lr (it was 1e+30 at the last step)" in found.text
    assert "The last healthy steps" in found.text
    assert "mdp pretrain --resume wild" in found.text
    ranges = [record["views"][0][key][0] for key in ("least", "mean", "greatest")]
    assert record["samples"][0] + ", ".join(f"{value:.2f}" for value in ranges) in found.text  # cells of one row


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        (6, "step 2: out of memory (CUDA out of memory); lower it", "--accumulate 2 (or more), which keeps the batch"),
        (6, "a loader process died; the machine may be out of memory or shared memory", "fewer --workers"),
        (3, "x.png: damaged", "--on-bad-sample skip"),
        (6, "x: no space left on the device", "Once that is mended, mdp finetune --resume"),
    ],
)
def test_what_a_failed_run_lacked_decides_what_to_try(tmp_path: Path, code: int, message: str, words: str) -> None:
    status = {"state": "failed", "step": 1, "steps": 9, "message": message, "exit_code": code}
    found = checked(run_report([write_run(tmp_path / "a", [train(1)], status=status)], None)).text
    assert words in found
    assert found.count("What to try") == ("Once" not in words)
    assert "The last healthy steps" in found


def test_remedies_that_are_in_use_already_are_not_proposed(tmp_path: Path) -> None:
    status = {"state": "failed", "step": 1, "steps": 9, "message": "no number", "exit_code": 4}
    run = write_run(tmp_path / "a", [train(1)], status=status)
    assert "run.clip_norm=1" in checked(run_report([run], None)).text
    (run / "config.yaml").write_text("run: {clip_norm: 1.0, precision: fp16}\nfinetune: {warmup_steps: 100}\n")
    found = checked(run_report([run], None)).text
    assert "clip_norm=1" not in found
    assert "a warm-up" not in found
    assert "--precision bf16" in found


def test_time_among_processes_is_a_chart_of_runs_that_have_some(tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", [train(1)])
    assert "Communication between processes" not in run_report([alone], None).read_text()
    two = write_run(tmp_path / "two", [train(1, communication=0.375), train(2, communication=0.5)])
    drawn = run_report([alone, two], tmp_path / "both.html").read_text()
    chart = next(part for part in drawn.split("<figure")[1:] if "Communication between processes" in part)
    assert 'data-name="two" data-values="1,37.5;2,50"' in chart
    assert 'data-name="alone"' not in chart


def test_two_runs_share_their_charts_and_only_settings_that_differ_are_listed(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", [train(1), train(2)])
    second = write_run(tmp_path / "second", [train(1), train(3)])
    (second / "config.yaml").write_text("run: {seed: 1, clip_norm: null}\nfinetune: {target: site, warmup_steps: 0}\n")
    write_scores(first, [[3, 1], [2, 2]], ["road", "sky"])
    write_scores(second, [[4, 0], [1, 3]], ["road", "sky"])
    place = run_report([first, second, first], tmp_path / "new" / "both.html")
    assert place == tmp_path / "new" / "both.html"
    found = checked(place)
    assert 'data-name="first" data-values="1,25;2,25"' in place.read_text()  # data wait, in percent
    loss = place.read_text().split('id="chart-0"')[1].split("</figure>")[0]
    assert 'data-name="first" data-values="1,2;2,1"' in loss
    assert 'data-name="second" data-values="1,2;3,0.66667"' in loss
    differing = found.text.split("Settings that differ")[1].split("config.yaml")[0]
    assert "run.seed" in differing
    assert "target" not in differing
    assert found.text.count("43.2") >= 2
    assert "41.0 to 45.0" in found.text


def test_comparisons_stand_among_the_runs_with_the_numbers_of_their_own_tables(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [train(1), train(2)])
    place = run_report([STUDY, run], tmp_path / "page.html")
    found = checked(place)
    for file in comparisons(STUDY):
        whole = read_comparison(file)
        for line in report(whole).splitlines()[2:]:
            numbers = re.findall(r"\d+\.\d\d ± \d+\.\d\d \(\d\)|[+-]\d+\.\d\d \[[^]]+\]", line)
            assert all(number in found.text for number in numbers), line
    assert "With 1/8 of the labels: moco, supervised, single-set, multi-set, multi-set-seen above scratch" in found.text
    assert "Where each run stands" in found.text
    alone = checked(run_report([STUDY / "msrc.json"], tmp_path / "alone.html"))
    assert "Where each run stands" not in alone.text
    cells = [cell for cell in read_comparison(STUDY / "msrc.json")["cells"] if cell["start"] == "scratch"]
    last = sum(100 * dict(map(tuple, cell["curve"]))[120] for cell in cells) / len(cells)
    assert f"120,{last:.5g}" in (tmp_path / "alone.html").read_text()


def test_the_studys_page_is_a_report_of_its_files_and_runs() -> None:
    found = checked(STUDY.parent / "study.html")
    for file in comparisons(STUDY):
        for start in read_comparison(file)["starts"]:
            assert start in found.text
    assert found.text.count("mdp pretrain --config examples/study/study.yaml") == 21
    assert (STUDY.parent / "study.html").stat().st_size < 5e6


def test_a_folder_or_file_that_is_neither_run_nor_comparison_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.txt").write_text("")
    for place, words in ((tmp_path / "x.json", "expected a compare.json"), (tmp_path / "x.txt", "found another file"),
                         (tmp_path / "nowhere", "found nothing"), (tmp_path, "expected a compare.json")):  # fmt: skip
        with pytest.raises(RecipeError, match=words):
            run_report([place], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_one_evaluation_shows_its_bars_and_pairs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [train(1)])
    write_scores(run, [[30, 10], [0, 60]], ["road", "sky"])
    place = run_report([run], None)
    words = checked(place).text
    assert "road40.00" in words.replace(" ", "")  # % of the labelled pixels
    assert "sky (25.0 %)" in words
    assert "width:50.0%" in place.read_text()


def test_the_confusion_matrix_of_an_evaluation_is_in_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [train(1)])
    (run / "eval" / "s-val").mkdir(parents=True)
    Image.fromarray(np.full((50, 60, 3), 200, dtype=np.uint8)).save(run / "eval" / "s-val" / "confusion.png")
    found = checked(run_report([run], None))
    assert [image["alt"] for image in found.all("img")] == ["s-val: confusion matrix, shares of each labelled class"]
    assert "Confusion matrices" in found.text


def test_the_worst_images_are_in_the_page_as_far_as_it_stays_small(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [train(1)])
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 900, 3), dtype=np.uint8)  # noise: 1.8 MB each
    for name in ("s-val", "t-val", "u-val", "v-val"):
        (run / "eval" / name / "gallery").mkdir(parents=True)
        Image.fromarray(pixels).save(run / "eval" / name / "gallery" / "page-01.png")
    place = run_report([run], None)
    source = place.read_text()
    found = checked(place)
    assert 1 <= len(found.all("img")) < 4
    assert found.text.count("Left out, to keep this page small") == 4 - len(found.all("img"))
    assert place.stat().st_size < 5e6
    shown = Image.open(io.BytesIO(base64.b64decode(source.split("base64,")[1].split('"')[0])))
    assert np.abs(np.array(shown).mean((0, 1)) - pixels.mean((0, 1))).max() < 2
    (run / "eval" / "s-val" / "gallery" / "page-01.png").write_bytes(b"no picture")
    found = checked(run_report([run], None))
    assert "s-val/gallery/page-01.png: " in found.text.split("What could not be read")[-1]
    assert len(found.all("img")) >= 1


def test_a_run_that_goes_on_says_how_long_its_last_record_is_ago(tmp_path: Path) -> None:
    status = {"state": "running", "step": 0, "steps": 900, "message": "", "exit_code": None}
    run = write_run(tmp_path / "a", [train(1), train(2), '{"kind": "train", "st'], status=status)
    facts = read_run(run, "a")
    assert facts.changed is not None
    young, old = page([facts], facts.changed + 60), page([facts], facts.changed + 7200)
    assert "running</b>, step 2 of 900" in young
    assert "60 s before" in young
    assert "killed outright" not in young
    assert "killed outright" in old
    assert "no record, left out: 1" in young


def test_a_run_without_a_step_or_with_broken_files_is_shown_with_what_there_is(tmp_path: Path) -> None:
    run = tmp_path / "a"
    run.mkdir()
    (run / "status.json").write_text("{")
    (run / "labels.json").write_text("{}")
    (run / "config.yaml").write_text("run: [")
    (run / "eval" / "x").mkdir(parents=True)
    (run / "eval" / "x" / "scores.json").write_text('{"classes": [{"name": "a"}], "confusion": [[1, 2]]}')
    found = checked(run_report([run], None))
    assert "No step is recorded yet" in found.text
    notes = found.text.split("What could not be read")[-1]
    for words in ("status.json: not JSON", "labels.json: expected a JSON list", "config.yaml: not valid YAML",
                  "env.json: the file is missing", "not the scores of an evaluation"):  # fmt: skip
        assert words in notes, words


def test_how_much_views_overlap_is_shown_and_what_is_no_count_of_it_is_left_out(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "a", [train(1)], view_overlaps={"images": 1000, "max_iou": 0.9, "pairs": [250, *[75] * 10]}
    )
    found = checked(run_report([run], None))
    assert "of the first 1,000 images" in found.text
    assert found.text.count("7.5%") == 10
    assert "nothing shared 25.0%" in " ".join(found.text.split())
    other = write_run(tmp_path / "b", [train(1)], view_overlaps={"images": 1000, "pairs": [250]})
    assert "not the overlaps of views, left out" in checked(run_report([other], None)).text


def test_no_name_of_anything_becomes_markup(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / HOSTILE.replace("/", ""),
        [train(1, **{HOSTILE: 1.0, "huge": 10**400}),
         json.dumps({"kind": "validate", "step": 1, "miou": {HOSTILE: 0.5}}),
         json.dumps({"kind": HOSTILE, "step": 1, HOSTILE: 3})],
        labels=[{"name": HOSTILE, "classes": [HOSTILE], "images": HOSTILE}],
        env={HOSTILE: HOSTILE},
        class_shares=[{"name": HOSTILE, "images": 3, "pixels": [9], "ignored": 1}, {"name": HOSTILE, "pixels": "x"}],
        status={**dict.fromkeys(("state", "step", "steps", "message", "time"), HOSTILE), "exit_code": 4},
        diverged={"step": HOSTILE, "message": HOSTILE, "samples": [HOSTILE], "views": [{"least": [HOSTILE],
                  "mean": [10**400], "greatest": [None]}, 3]},
    )  # fmt: skip
    write_scores(run, [[1, 2], [3, 4]], [HOSTILE, "b"])
    for file in ("command.txt", "log.txt", "config.yaml"):
        (run / file).write_bytes(os.fsencode(HOSTILE))
    plain = HOSTILE[1 : HOSTILE.index("\x1b")]  # a setting has no control characters
    other = write_run(tmp_path / "b", [train(1)])
    (other / "config.yaml").write_text(json.dumps({plain: plain}))
    for folders in ([run], [run, other]):
        place = run_report(folders, tmp_path / "page.html")
        assert "onerror=alert(1)>" in checked(place).text  # as words
        source = place.read_text(encoding="utf-8")
        assert "\x1b" not in source
        assert "\u202e" not in source
        assert source.count("<script") == 1
        assert "<img" not in source


def test_the_policy_of_the_page_allows_its_own_script_only(tmp_path: Path) -> None:
    place = run_report([write_run(tmp_path / "a", [train(1)])], None)
    source = place.read_text(encoding="utf-8")
    script = source.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta["content"] for meta in checked(place).all("meta") if "http-equiv" in meta)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    )


def test_a_run_of_100_000_lines_fits_into_five_megabytes_and_its_spike_stays(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((100_000, 3)).tolist()
    lines = [
        f'{{"kind": "train", "step": {step}, "loss": {loss}, "lr": 0.1, "images_per_second": {speed}, '
        f'"data_wait": {wait}, "valid_share": {wait}, "classes_in_batch": 5}}'
        for step, (loss, speed, wait) in enumerate(values, 1)
    ]
    lines[51_233] = train(51_234, loss=77.25)
    run = write_run(tmp_path / "a", lines)
    begun = time.process_time()
    place = run_report([run], None)
    assert time.process_time() - begun < 30
    assert place.stat().st_size < 5e6
    checked(place)
    assert place.read_text().count("51234,77.25") == 1


def test_twenty_four_long_runs_still_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [train(step, loss=loss) for step, loss in enumerate(rng.random(3000).tolist(), 1)]
    folders = [write_run(tmp_path / str(run), lines) for run in range(MOST)]
    assert run_report(folders, None).stat().st_size < 5e6
    with pytest.raises(RecipeError, match="expected 1 to 24 runs, got 25"):
        run_report([*folders, write_run(tmp_path / "x", lines[:1])], None)


def test_the_command_prints_where_the_page_is_and_touches_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "a", [train(1)])
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}
    cli.main(["report", str(run)], standalone_mode=False)
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    cli.main(["report", str(run), "-q", "--out", str(tmp_path / "other.html")], standalone_mode=False)
    assert capsys.readouterr().out == ""
    checked(tmp_path / "other.html")
    (run / "report.html").unlink()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()} == before


def test_the_same_moment_is_at_the_same_place_in_all_charts() -> None:
    early, late = (Line("a", 0, np.array(steps), np.array([1.0, 2.0])) for steps in ([1.0, 60.0], [50.0, 60.0]))
    places = [re.findall(r"[ML]([\d.]+) [\d.]+(?=[L\"])", figure(Chart("t", "u", [line]), 0)) for line in (early, late)]
    assert places == [["51.7", "390.0"], ["332.7", "390.0"]]  # 46 + 344 / 60, 46 + 344 * 50 / 60


def test_a_chart_has_four_points_a_bucket_at_most_however_many_its_lines_are() -> None:
    values = np.random.default_rng(0).random((MOST, 5000))
    lines = [Line(str(run), run, np.arange(5000.0), row) for run, row in enumerate(values)]
    for count in (1, MOST):
        points = figure(Chart("t", "u", lines[:count]), 0).count(";") + count
        assert 1000 < points <= min(4 * 2000, 4 * 300 * count) + count


def test_scores_while_pretraining_and_while_fine_tuning_are_in_charts_of_their_own(tmp_path: Path) -> None:
    nested = {"kind": "validate", "step": 1, "miou": {"site": 0.25}, "majority_miou": {"site": 0.125}}
    plain = {"kind": "validate", "step": 1, "miou": 0.5, "aacc": 0.75}
    pretrained = write_run(tmp_path / "p", [train(1), json.dumps({**nested, "prototype_cosine": 0.5})])
    classified = write_run(tmp_path / "c", [train(1), json.dumps(nested)])
    tuned = write_run(tmp_path / "f", [train(1), json.dumps(plain)])
    words = checked(run_report([pretrained, tuned], None)).text
    assert "site: nearest-prototype mIoU" in words
    place = run_report([pretrained, classified, tuned], None)
    source = place.read_text()
    assert "site: nearest-prototype mIoU" not in source
    scores = source.split("<h3>site: mIoU of the class scores</h3>")[1].split("</figure>")[0]
    tuning = source.split("<h3>site: validation mIoU</h3>")[1].split("</figure>")[0]
    assert re.findall(r'data-name="([^"]*)" data-values="([^"]*)"', scores) == [
        ("p", "1,25"), ("c", "1,25"), ("always the most frequent class", "1,12.5"),
    ]  # fmt: skip
    assert re.findall(r'data-name="([^"]*)" data-values="([^"]*)"', tuning) == [("f", "1,50")]


# What is refused, and what is replaced


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, words in (("file", "found another file"), ("none", "found nothing"), ("empty", "not a run of mdp")):
        with pytest.raises(RecipeError, match=words) as caught:
            run_report([tmp_path / name], None)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_a_page_replaces_a_page_and_nothing_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [train(1)])
    first = run_report([run], None).read_text()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(train(2) + "\n")
    assert run_report([run], None).read_text() != first
    assert not [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
    (tmp_path / "mine.html").write_text("<p>mine")
    with pytest.raises(RecipeError, match="no report of mdp"):
        run_report([run], tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "<p>mine"
    with pytest.raises(RecipeError, match="found a folder"):
        run_report([run], tmp_path)
    with pytest.raises(ResourceError):
        run_report([run], tmp_path / "mine.html" / "x" / "page.html")


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    assert unique_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
