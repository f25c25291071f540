"""Every method as a whole run: resumed exactly, and on two real sets with a falling loss."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mdp.io.data.pool import Pool
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Sample
from mdp.io.errors import RecipeError
from mdp.io.files.images import write_rgb
from mdp.io.recipe.layers import Layer, merge
from mdp.io.recipe.methods import find_method, method_names
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.io.training.pretraining import describe_pretraining
from tests.conftest import ROOT
from tests.small_runs import TINY, assert_resumes_exactly, tensors_of
from tests.trees import camvid_tree, voc_tree

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")

NAMES = method_names()
SMALL = {"embedding": 8, "hidden": 8, "queue": 24, "groups": 2, "size": 32, "small_size": 16, "small_count": 2}
SMALL |= {"frozen_steps": 2, "queue_epoch": 0}
CLUSTERING = ("swav", "pass_s", "pixel_attention")  # their `prototypes` is a number


def layer_of(method: str, **settings: Any) -> Layer:
    """The tiny recipe with that method at a small size."""
    fields = find_method(method).Settings.__dataclass_fields__
    own = {key: value for key, value in SMALL.items() if key in fields}
    if method in CLUSTERING:
        own["prototypes"] = 8
    return {**TINY, "method": {"name": method, **own, **settings}}


def request(layer: Layer, **others: Any) -> Request:
    return Request(**{"layers": (layer,), "quiet": True, **others})


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("supervised", {"heads": "datasets"}),
    ("region_bank", {"denominator": "negatives"}),
    ("multi_dataset", {"bank_images": 8, "small_count": 2, "small_size": 32}),
]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the run of each method that is never stopped."""
    return tmp_path_factory.mktemp("wholes")


@pytest.mark.parametrize(("method", "settings"), VARIANTS, ids=str)
def test_a_resumed_run_ends_bit_for_bit_as_if_never_stopped(
    method: str, settings: dict[str, Any], wholes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_resumes_exactly(monkeypatch, layer_of(method, **settings), Path("whole") if settings else wholes / method)


@pytest.mark.parametrize("method", NAMES)
def test_what_a_method_learns_starts_a_fine_tuning(method: str, wholes: Path) -> None:
    run = wholes / method
    if not run.exists():
        run_pretraining(request(layer_of(method), out=run))
    tuned = run_finetuning(request(merge(TINY, {"finetune": {"steps": 1}}), out=Path("tuned"), init=str(run)))
    assert "loaded 120 of 120 backbone tensors" in (tuned / "log.txt").read_text()


@pytest.mark.parametrize("method", NAMES)
def test_a_dry_run_says_what_a_method_needs(method: str) -> None:
    voc_tree(Path("data"))
    camvid_tree(Path("data"))
    # few images: few steps make an epoch
    changes = {"pretrain": {"datasets": ["voc", "camvid"], "batch_size": 4}, "data": {"root": "data"}}
    short = merge(layer_of(method), changes)
    plan = describe_pretraining(request(short))
    run = run_pretraining(request(merge(short, {"pretrain": {"steps": plan["steps_an_epoch"] + 1}})))
    state = [t for name, t in tensors_of(run).items() if name.startswith("state.")]
    held = sum(tensor.numel() * tensor.element_size() for tensor in state)
    assert held <= plan["state_bytes"]
    # queues are allocated whole, a bank has the classes that batches have
    if method not in ("region_bank", "multi_dataset"):
        assert held == plan["state_bytes"]


# Small queues, and a key encoder that follows within the 50 steps: otherwise what is measured is how they fill
QUICK: dict[str, dict[str, Any]] = {
    "multi_dataset": {"key_momentum": 0.9, "bank_batches": 4},
    "pixel_pairs": {"key_momentum": 0.9},
    "region_bank": {"key_momentum": 0.99, "queue": 8, "embedding": 32, "hidden": 32},
    "moco": {"queue": 16, "embedding": 32},
    "knn_moco": {
        "queue": 16,
        "embedding": 32,
        "size": 64,
        "small_size": 32,
        "neighbours": {"k": 3, "warmup_epochs": 0},
    },
    "supervised": {},
    "pass_s": {"prototypes": 16, "embedding": 32, "hidden": 64, "size": 64, "small_size": 32, "queue": 16},
    "pixel_attention": {"prototypes": 16, "embedding": 32, "hidden": 64, "size": 64, "small_size": 32, "queue": 16},
    "swav": {"prototypes": 16, "embedding": 32, "hidden": 64, "size": 64, "small_size": 32, "queue": 16},
}


@pytest.fixture(scope="module")
def each_file_is_read_once() -> Iterator[None]:
    """What a run has read is kept for the next: all draw the same photos, and reading them was a quarter of a run."""
    read, photo = Pool._read, Pool._photo
    pairs: dict[Sample, tuple[Tensor, Tensor]] = {}  # two hundred megabytes in the end
    photos: dict[Sample, Tensor] = {}

    def kept_pair(pool: Pool, index: int) -> tuple[Tensor, Tensor]:
        sample = pool.samples[index]
        if sample not in pairs:
            pairs[sample] = read(pool, index)
        return pairs[sample]

    def kept_photo(pool: Pool, index: int) -> Tensor:
        sample = pool.samples[index]
        if sample not in photos:
            photos[sample] = pairs[sample][0] if sample in pairs else photo(pool, index)
        return photos[sample]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "_read", kept_pair)
        patch.setattr(Pool, "_photo", kept_photo)
        yield


@pytest.mark.usefixtures("each_file_is_read_once")
@pytest.mark.parametrize(("method", "settings"), VARIANTS[: len(NAMES) + 2], ids=str)
def test_fifty_steps_on_two_real_sets_lower_the_loss(method: str, settings: dict[str, Any], real_data: Path) -> None:
    changes = {
        "run": {"check": False},  # these photos are checked elsewhere
        "data": {"root": str(real_data)},
        "model": {"width": 8, "channels": 16},
        "pretrain": {
            "datasets": [str(ROOT / "examples" / "datasets" / f"{name}.yaml") for name in ("camvid", "msrc")],
            "steps": 50,
            "batch_size": 8,
            "crop": 64,
            "lr": 0.1,
            "validate_images": 2,
        },
    }
    run = run_pretraining(request(merge(layer_of(method, **{**QUICK[method], **settings}), changes)))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    assert len(steps) == 50
    # the loss above that of a guess: while queues fill, a guess is among more and more rows
    found = [step["loss"] - math.log(step.get("rows_in_queues", 1)) for step in steps]
    start = 5 if "moco" in method else 0  # its queue starts as noise, which is easy to tell apart
    first, last = sum(found[start : start + 10]) / 10, sum(found[-10:]) / 10
    assert last < first - 0.05


def test_moco_takes_a_folder_of_photos_beside_labelled_sets_and_others_refuse_it() -> None:
    (Path("photos") / "deep").mkdir(parents=True)
    for index in range(6):
        write_rgb(Path("photos") / "deep" / f"{index}.png", torch.randint(0, 255, (40, 50, 3)).byte().numpy())
    data = {"pretrain": {"datasets": ["photos", "shapes-coarse"], "steps": 2}}
    run = run_pretraining(request(merge(layer_of("moco"), data)))
    sizes = {space["name"]: space["images"] for space in json.loads((run / "labels.json").read_text())}
    assert sizes["photos"] == 6
    assert len(load("shapes-coarse").labels.classes) > 0
    with pytest.raises(RecipeError, match="photos: no labels, and the method multi_dataset needs them"):
        run_pretraining(request(merge(layer_of("multi_dataset"), data)))


def test_settings_that_do_not_fit_the_data_are_told_before_there_is_a_run_folder() -> None:
    with pytest.raises(RecipeError, match=r"method\.groups: 3 BatchNorm groups leave fewer than 2 images"):
        run_pretraining(request(layer_of("moco", groups=3), out=Path("run")))
    assert not Path("run").exists()
