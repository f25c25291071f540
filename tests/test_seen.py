"""Photos to score that a run, or those that it started from, was trained on are said, wherever they are scored."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdp.io.check.leaks import Print, leaks
from mdp.io.check.seen import FILE, Photo, Seen, as_file, read_seen, told, twins
from mdp.io.evaluation.job import run_evaluation
from mdp.io.recipe.request import Request
from mdp.io.report.compared import read_comparison
from mdp.io.studies.asked import CompareQuestion
from mdp.io.studies.compare import parse_comparison, run_comparison
from mdp.io.training.job import run_finetuning, run_pretraining
from tests.small_runs import request
from tests.trees import grey, labels_array, photo

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

SIZE = (64, 96)
ONE_STEP: tuple[tuple[str, Any], ...] = (("pretrain.steps", 1), ("pretrain.warmup_steps", 0))


def split(folder: Path, seeds: range) -> Path:
    for seed in seeds:
        photo(folder / "img" / f"{seed:03d}.png", seed, SIZE)
        grey(folder / "lab" / f"{seed:03d}.png", labels_array((0, 1), seed, SIZE))
    return folder


def described(name: str) -> None:
    """`NAME.yaml` about the splits in the folder NAME."""
    splits = "".join(
        f"  {path.name}: {{images: {name}/{path.name}/img, labels: {name}/{path.name}/lab}}\n"
        for path in sorted(Path(name).iterdir())
    )
    Path(f"{name}.yaml").write_text(f"classes: {{0: ground, 1: car}}\nsplits:\n{splits}")


def into(folder: Path, stem: str, source: Path, how: str) -> None:
    """A photo that was seen, as a photo to score: copied, stored otherwise, or made smaller as a JPEG."""
    target = folder / "img" / f"{stem}.{ {'copied': 'png', 'stored': 'bmp', 'smaller': 'jpg'}[how] }"
    size = SIZE
    if how == "copied":
        shutil.copy(source, target)
    elif how == "stored":
        Image.open(source).save(target)
    else:
        size = (SIZE[0] // 2, SIZE[1] // 2)
        Image.open(source).resize(size[::-1]).save(target, quality=80)
    grey(folder / "lab" / f"{stem}.png", labels_array((0, 1), 7, size))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `pre` on the photos of `pool`, and a target of which some photos to score are among them."""
    folder = tmp_path_factory.mktemp("seen")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        split(Path("pool/train"), range(8))
        split(Path("target/train"), range(100, 106))
        val = split(Path("target/val"), range(200, 204))
        for stem, how in (("300", "copied"), ("301", "stored"), ("302", "smaller")):
            into(val, stem, Path(f"pool/train/img/{int(stem) - 300:03d}.png"), how)
        for name in ("pool", "target"):
            described(name)
        run_pretraining(request(*ONE_STEP, ("pretrain.datasets", ["pool.yaml"]), out=Path("pre")))
    return folder


@pytest.fixture
def inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def finetuned(out: Path, init: str, *changes: tuple[str, Any], target: str = "target.yaml") -> Path:
    layer = (("finetune.steps", 1), ("finetune.validate_steps", 1), ("eval.images", None))
    layer = (*layer, ("finetune.target", target), *changes)
    return run_finetuning(request(*layer, out=out, init=init))


BOTH = (
    "warning: 3 of the 7 photos to score were seen in training: 2 exactly (target/val/img/300.png is "
    "pool/train/img/000.png of pretrain pool, target/val/img/301.bmp is pool/train/img/001.png of pretrain pool), "
    "1 nearly (target/val/img/302.jpg is like pool/train/img/002.png of pretrain pool)"
)


def test_finetune_and_eval_say_which_photos_to_score_the_start_was_trained_on(inside: Path, tmp_path: Path) -> None:
    """Over two generations: a run knows what the one that it started from had seen."""
    run = finetuned(tmp_path / "first", "pre")
    assert BOTH in (run / "log.txt").read_text()
    again = finetuned(tmp_path / "second", str(run))
    assert BOTH in (again / "log.txt").read_text()
    scores = run_evaluation(Request(init=str(again), quiet=True), "last", keep=False)[0]
    assert {key: scores["seen"][key] for key in ("photos", "exact", "near")} == {"photos": 7, "exact": 2, "near": 1}
    assert [(twin["photo"], twin["seen"], twin["exact"]) for twin in scores["seen"]["twins"]] == [
        ("target/val/img/300.png", "pool/train/img/000.png", True),
        ("target/val/img/301.bmp", "pool/train/img/001.png", True),
        ("target/val/img/302.jpg", "pool/train/img/002.png", False),
    ]
    assert scores["seen"]["text"] in BOTH
    assert "3 of the 7 photos to score were seen in training" in (again / "report.html").read_text()


def test_a_run_from_scratch_has_seen_none_but_what_it_trained_on(inside: Path, tmp_path: Path) -> None:
    run = finetuned(tmp_path / "scratch", "scratch")
    assert "seen in training" not in (run / "log.txt").read_text()
    asked = Request(init=str(run), quiet=True, report=False)
    assert run_evaluation(asked, "last", keep=False)[0]["seen"]["text"] == ""
    on_its_own = Request(init=str(run), quiet=True, layers=({"eval": {"split": "train"}},), report=False)
    seen = run_evaluation(on_its_own, "last", keep=False)[0]["seen"]
    assert (seen["exact"], seen["near"], seen["photos"]) == (6, 0, 6)
    assert {twin["run"] for twin in seen["twins"]} == {"finetune target"}


def test_without_the_check_files_are_compared_also_those_trained_on(inside: Path, tmp_path: Path) -> None:
    """And what `eval` decodes, it compares with what is known: here files only."""
    shutil.copytree("target", tmp_path / "target")
    into(tmp_path / "target" / "val", "400", tmp_path / "target" / "train" / "img" / "101.png", "copied")
    text = Path("target.yaml").read_text()
    (tmp_path / "target.yaml").write_text(text)
    target = str(tmp_path / "target.yaml")
    run = finetuned(tmp_path / "bare", "scratch", ("run.check", False), target=target)
    said = "1 of the 8 photos to score were seen in training: 1 exactly (target/val/img/400.png is target/train/img/101"
    assert said in (run / "log.txt").read_text()
    scores = run_evaluation(Request(init=str(run), quiet=True, report=False), "last", keep=False)[0]
    assert (scores["seen"]["exact"], scores["seen"]["near"]) == (1, 0)


def test_compare_says_of_which_start_photos_to_score_were_seen(inside: Path, tmp_path: Path) -> None:
    asked = parse_comparison(CompareQuestion(starts=("scratch", "ours=run:pre"), shares="1", seeds=1))
    layer = (("finetune.steps", 1), ("finetune.validate_steps", 1), ("finetune.target", "target.yaml"))
    folder = run_comparison(request(*layer, ("eval.images", None), out=tmp_path / "cmp"), asked)
    cells = {cell["start"]: cell for cell in read_comparison(folder / "compare.json")["cells"]}
    assert cells["scratch"]["seen"] == ""
    assert f"warning: {cells['ours']['seen']}" == BOTH
    assert f"warning: ours: {cells['ours']['seen']}" in (folder / "compare.txt").read_text()


def test_a_run_that_says_nothing_of_its_photos_is_told(inside: Path, tmp_path: Path) -> None:
    shutil.copytree("pre", tmp_path / "old")
    (tmp_path / "old" / FILE).write_bytes(b"damaged")
    run = finetuned(tmp_path / "run", str(tmp_path / "old"))
    assert "note: nothing tells which photos" in (run / "log.txt").read_text()
    assert "seen in training" not in (run / "log.txt").read_text()


# Looking for twins


numbers = st.integers(1, 7) | st.integers(1, 2**64 - 1)


@given(st.lists(st.tuples(numbers, numbers), max_size=12), st.lists(st.tuples(numbers, numbers), max_size=6), st.data())
def test_twins_are_those_that_the_check_finds_between_splits(
    trained: list[tuple[int, int]], scored: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Looks of the photos to score are often those of trained ones with a few bits turned."""
    if trained and scored:
        bits = data.draw(st.lists(st.integers(0, 63), max_size=4))
        scored = [(pixels, _turned(trained[i % len(trained)][1], bits)) for i, (pixels, _) in enumerate(scored)]
    columns = np.array(trained, dtype=np.uint64).reshape(-1, 2)
    nothing = np.zeros(len(trained), dtype=np.uint64)
    names = [str(i) for i in range(len(trained))]
    seen = Seen(["pretrain x"], names, np.zeros(len(trained), np.int64), nothing, columns[:, 0], columns[:, 1])
    found = twins(seen, [Photo(f"v{i}", 0, *row) for i, row in enumerate(scored)])
    exact, near = leaks(
        [Print(str(i), hex(pixels), look) for i, (pixels, look) in enumerate(trained)],
        [Print(f"v{i}", hex(pixels), look or None) for i, (pixels, look) in enumerate(scored)],
    )
    assert [twin.photo for twin in found if twin.exact] == [line.partition(" ")[0] for line in exact]
    assert [twin.photo for twin in found if not twin.exact] == [line.partition(" ")[0] for line in near]


def _turned(look: int, bits: list[int]) -> int:
    for bit in bits:
        look ^= 1 << bit
    return look


def test_the_list_is_read_back_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 2**63, 5, dtype=np.uint64) for _ in range(3)]
    seen = Seen(["pretrain a", "finetune b"], [f"{i}\udcff.png" for i in range(5)], np.array([0, 0, 1, 1, 1]), *columns)
    data = as_file(seen)
    (tmp_path / FILE).write_bytes(data)
    back = read_seen(tmp_path)
    assert back
    assert (back.runs, back.names) == (seen.runs, seen.names)
    assert all((a == b).all() for a, b in zip(back[2:], seen[2:], strict=True))
    for damage in (data[:-9], data[:100] + bytes(30) + data[130:], b"", as_file(seen._replace(run=seen.run + 9))):
        (tmp_path / FILE).write_bytes(damage)
        assert read_seen(tmp_path) is None
    assert told([], 3) == ""
