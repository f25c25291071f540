"""What is kept of decoded photos and label maps (`run.cache`): the same bits, read once, by all of a machine."""

import multiprocessing
import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.geometry import Box, View, _resized_bytes, cut_image
from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.photometry import PhotometrySettings
from mdp.core.views import ViewGroup, ViewPlan
from mdp.io.data.cache import opening
from mdp.io.data.cache.form import first_classes, form_of, ignored_of, of_union, own
from mdp.io.data.cache.kept import Kept
from mdp.io.data.cache.on_device import Drawing, OnDevice, stack_asked
from mdp.io.data.cache.opening import cache_bytes, with_cache
from mdp.io.data.cache.room import free_memory
from mdp.io.data.crops import FinetuneItems, stack_crops
from mdp.io.data.loader import Forgiving, load, to_device
from mdp.io.data.pool import Pool
from mdp.io.data.selection import Plan, plan_pretraining
from mdp.io.data.views import PretrainItems, stack_views, usual_views
from mdp.io.datasets import load as load_dataset
from mdp.io.datasets._dataset import Dataset, Sample, open_split
from mdp.io.errors import MdpError, RecipeError, ResourceError
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import resolve
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import FinetuneSettings, PretrainSettings
from mdp.io.training.job import run_finetuning, run_pretraining
from mdp.io.training.pretraining import describe_pretraining
from mdp.photo_rule import PhotoRule
from tests import trees
from tests.fake_cuda import DEVICE, FakeCuda
from tests.fake_cuda.guard import unavailable
from tests.fake_cuda.report import COPY, WAIT
from tests.small_runs import assert_same, losses, request, signal_after, tensors_of

CPU = torch.device("cpu")
VIEWS = usual_views(PretrainSettings(crop=24))
AUTO = ViewPlan(
    groups=(ViewGroup(count=2, size=24, area=(0.2, 1.0), auto_augment=(0.5, 1.0)),), photometry=PhotometrySettings()
)
WINDOWS, SHARES = FinetuneSettings(crop=(40, 48), ratio=(0.3, 0.9)), FinetuneSettings(crop=(24, 32), crop_area=(0.3, 1))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC with photos of two sizes, and ADE20K."""
    root = tmp_path_factory.mktemp("data")
    voc = trees.voc_tree(root)
    trees.photo(voc / "JPEGImages/2007_000002.jpg", 9, (50, 70))
    trees.palette(voc / "SegmentationClass/2007_000002.png", trees.labels_array([0, 3, 255], 9, (50, 70)))
    trees.ade20k_tree(root)
    return root


def counted(dataset: Dataset, reads: Counter[str]) -> Dataset:
    """The dataset, which counts what is read."""

    def read(sample: Sample) -> Any:
        reads[sample.image] += 1
        return dataset.read(sample)

    return replace(dataset, read=read, photo=lambda sample: read(sample)[0])


def plan_of(root: Path, cache: str, reads: Counter[str] | None = None, **changes: Any) -> Plan:
    """The three photos of VOC and those of ADE20K, with what is kept of them."""
    datasets = [counted(load_dataset(name), Counter() if reads is None else reads) for name in ("voc", "ade20k")]
    samples = [sample for d in datasets for sample in open_split(d, root, "train")[0]]
    pool = Pool(samples, {d.name: d for d in datasets}, LabelUnion([d.labels for d in datasets]))
    recipe = resolve({"run": {"cache": cache}})
    return with_cache(Plan(recipe=recipe, pool=pool, validation=None, **changes), CPU, ALONE)


def parts_of(value: Any) -> list[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [part for item in value for part in parts_of(item)] if isinstance(value, tuple | list) else []


def batches_of(plan: Plan, kind: str, finish: bool, workers: int = 0, skip: bool = False) -> list[list[Tensor]]:
    """Two epochs of all samples, as a run's loader gives them."""
    pool, labelled = plan.pool, plan.labelled
    items: Any
    if kind in ("views", "auto"):
        plan_of_views = VIEWS if kind == "views" else AUTO
        items, stack = PretrainItems(pool, plan_of_views, 3, labelled, finish), stack_views
    else:
        items, stack = FinetuneItems(pool, WINDOWS if kind == "windows" else SHARES, 3, finish), stack_crops
    keys = iter([[(epoch, index) for index in range(len(pool.samples))] for epoch in range(2)])
    make = None
    if plan.recipe.run.cache == "device":
        assert pool.kept
        make = OnDevice(items, pool.kept, stack, CPU).cut_
        items, stack = Drawing(items, pool.kept), stack_asked
    items, skipped = (Forgiving(items, len(pool.samples)), lambda _: None) if skip else (items, None)
    return [parts_of(batch) for batch in to_device(load(items, keys, workers, skipped, stack), CPU, make)]


@pytest.mark.parametrize("cache", ["memory", "device"])
@pytest.mark.parametrize("finish", [False, True], ids=["bytes", "finished"])
@pytest.mark.parametrize("kind", ["views", "auto", "windows", "shares", "unlabelled"])
def test_crops_are_those_of_a_run_without_a_cache_to_the_bit_and_files_are_read_once(
    kind: str, finish: bool, cache: str, root: Path
) -> None:
    reads: Counter[str] = Counter()
    changes = {"labelled": kind != "unlabelled", "draws_by_labels": kind == "windows"}
    kind = "views" if kind == "unlabelled" else kind
    plain = batches_of(plan_of(root, "off", **changes), kind, finish)
    kept = batches_of(plan_of(root, cache, reads, **changes), kind, finish)
    assert [len(parts) for parts in plain] == [len(parts) for parts in kept]
    for first, second in zip(plain, kept, strict=True):
        assert all(map(torch.equal, first, second))
    assert set(reads.values()) == {1}


def test_workers_share_what_is_kept(root: Path) -> None:
    plain, plan = batches_of(plan_of(root, "off"), "views", False), plan_of(root, "memory")
    for first, second in zip(plain, batches_of(plan, "views", False, workers=2), strict=True):
        assert all(map(torch.equal, first, second))
    assert plan.pool.kept
    unread = plan.pool._replace(datasets={})  # whoever reads a file of it fails
    assert len(PretrainItems(unread, VIEWS, 3)[5, 1].images) == 1  # type: ignore[union-attr]


def test_photos_of_a_program_and_of_declared_channels_are_kept_as_they_are(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).random((9, 12, 5), dtype=np.float32)
    labels = np.full((9, 12), 300, dtype=np.uint16)
    reads: Counter[str] = Counter()
    space = LabelSpace(name="deep", classes=tuple(map(str, range(400))))
    rule = PhotoRule(mean=(0.5,) * 5, std=(1.0,) * 5)
    dataset = Dataset(
        name="deep", labels=space, splits={"train": None}, train=("train",), val=None, samples=lambda *_: [],
        read=lambda _: (deep, labels), photos=rule,
    )  # fmt: skip
    dataset = counted(dataset, reads)
    pool = Pool([Sample(f"{n}", f"{n} (labels)", "deep") for n in range(3)], {"deep": dataset}, LabelUnion([space]))
    plan = Plan(recipe=resolve({"run": {"cache": "memory"}}), pool=pool, validation=None)
    kept = with_cache(plan, CPU, ALONE).pool
    for _ in range(2):
        for index in range(3):
            assert all(map(torch.equal, kept.read(index), pool._read(index)))
    assert kept.kept
    assert kept.kept.places.form == torch.int16
    assert kept.kept.places.bytes == 3 * (2176 + 256)  # 9 x 12 of five floats and an int16, each padded to 64
    with pytest.raises(RecipeError, match=r"^run\.cache: device: it keeps RGB of 8 bits, and deep has declared"):
        with_cache(replace(plan, recipe=resolve({"run": {"cache": "device"}})), CPU, ALONE)


@given(st.lists(st.integers(0, 299), min_size=2, max_size=3), st.data())
def test_labels_come_back_from_the_form_in_which_they_are_kept(counts: list[int], data: st.DataObject) -> None:
    union = LabelUnion([LabelSpace(name=str(n), classes=tuple(map(str, range(c)))) for n, c in enumerate(counts)])
    name = str(data.draw(st.integers(0, len(counts) - 1)))
    among, form = union.classes_of(name), form_of(union)
    assert form == (torch.uint8 if max(counts) < 256 else torch.int16)
    values = [-1, *range(among.start, among.stop)]
    labels = torch.tensor(data.draw(st.lists(st.sampled_from(values), min_size=1)), dtype=torch.int16)
    first = int(first_classes(union, [name])[0])
    kept = own(labels, first, form)
    assert kept.dtype == form
    assert torch.equal(of_union(kept, first), labels)
    assert ((kept == ignored_of(kept)) == (labels == -1)).all()


# Files that are not as they should be


@pytest.mark.parametrize("cache", ["memory", "device"])
def test_a_damaged_photo_is_refused_as_without_a_cache_every_time(cache: str, tmp_path: Path) -> None:
    voc = trees.voc_tree(tmp_path)
    trees.ade20k_tree(tmp_path)
    (voc / "JPEGImages/2007_000002.jpg").write_bytes(b"no photo")
    (voc / "SegmentationClass/2008_000003.png").write_bytes(b"no label map")
    plans = [plan_of(tmp_path, mode) for mode in ("off", cache)]
    assert "1 photos have no header that can be read" in plans[1].lines[-1]
    told: list[list[str]] = []
    for plan in plans:
        items = PretrainItems(plan.pool, VIEWS, 3)
        asked: Any = Drawing(items, plan.pool.kept) if plan.pool.kept and cache == "device" else items
        found = [asked[epoch, index] for epoch in range(2) for index in range(3)]
        told.append([str(item) if isinstance(item, MdpError) else "" for item in found])
    assert told[0] == told[1]
    assert [bool(text) for text in told[0]] == [False, True, True] * 2
    skipped = [batches_of(plan, "views", False, skip=True) for plan in plans]
    for first, second in zip(*skipped, strict=True):
        assert all(map(torch.equal, first, second))


def test_a_file_that_changes_meanwhile_is_not_read_again_and_one_of_another_size_is_not_kept(tmp_path: Path) -> None:
    voc = trees.voc_tree(tmp_path)
    trees.ade20k_tree(tmp_path)
    pool = plan_of(tmp_path, "memory").pool
    first = pool.read(0)[0].clone()
    for name in ("2007_000001", "2008_000003"):  # the second before it is read
        trees.photo(voc / f"JPEGImages/{name}.jpg", 77, (40, 40))
        trees.palette(voc / f"SegmentationClass/{name}.png", trees.labels_array([0, 1], 0, (40, 40)))
    assert torch.equal(pool.read(0)[0], first)
    assert pool.read(2)[0].shape == (3, 40, 40)
    trees.photo(voc / "JPEGImages/2008_000003.jpg", 78, (40, 40))
    assert torch.equal(pool.read(2)[0], pool._read(2)[0])


def test_a_transform_that_writes_to_its_image_changes_nothing_that_is_kept(root: Path) -> None:
    def darker(image: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return image.div_(2, rounding_mode="floor"), labels

    pool = plan_of(root, "memory").pool._replace(transform=darker)
    first, second = (pool.read_changed((0, 0), seed=0)[0] for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(RecipeError, match="transform of a Python program"):
        with_cache(replace(plan_of(root, "off"), pool=pool, recipe=resolve({"run": {"cache": "device"}})), CPU, ALONE)


# Processes


def test_a_copy_in_another_process_is_the_same_memory_and_a_killed_reader_holds_up_nobody(root: Path) -> None:
    pool, spawn = plan_of(root, "memory").pool, multiprocessing.get_context("fork")
    assert pool.kept
    other = spawn.Process(target=_read_then_hang, args=(pickle.dumps(pool.kept), pool._replace(kept=None), 0, 1))
    other.start()
    while not pool.kept._has_pair(0):
        assert other.is_alive()
        os.sched_yield()
    os.kill(other.pid or 0, signal.SIGKILL)  # while it reads the second
    other.join()
    unread = pool._replace(datasets={})
    assert all(map(torch.equal, unread.read(0), pool._read(0)))
    assert all(map(torch.equal, pool.read(1), pool._read(1)))


def _read_then_hang(kept: bytes, pool: Pool, first: int, second: int) -> None:
    shared: Kept = pickle.loads(kept)
    pool = pool._replace(kept=shared)

    def hang() -> Any:
        pool.read(first)
        signal.pause()

    shared.pair(second, hang)


class Second(NamedTuple):
    """The second process of a machine; `path` is the memory of the first."""

    path: str
    rank: int = 1
    size: int = 2

    def broadcast_main(self, say: Callable[[], str]) -> str:
        return say()

    def gather_objects(self, value: Any) -> list[Any]:
        return [self.path, value]


def test_processes_of_a_machine_share_memory_but_each_has_a_device_of_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {cache: plan_of(root, cache).pool.kept for cache in ("memory", "device")}
    monkeypatch.setenv("LOCAL_RANK", "1")
    for cache, kept in first.items():
        assert kept
        kept.note_elsewhere(0, (64, 96))
        plan = replace(plan_of(root, "off"), recipe=resolve({"run": {"cache": cache}}))
        monkeypatch.setattr(opening, "_refuse_short", lambda *_: None)  # its answers are no paths
        second = with_cache(plan, CPU, Second(kept.path)).pool.kept
        assert second
        assert (second.path == kept.path) == (cache == "memory")
        assert second.elsewhere(0) == ((64, 96) if cache == "memory" else None)


# How much it is


@pytest.mark.parametrize("cache", ["memory", "device"])
def test_the_bytes_are_told_and_what_does_not_fit_is_refused_in_a_line(
    cache: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = plan_of(root, cache).lines
    assert line.startswith("cache: the decoded photos and label maps of 5 images take up to 1 MB of memory, filled")
    monkeypatch.setattr(opening, "free_memory", lambda: 10_000)
    with pytest.raises(
        ResourceError, match=r"^run\.cache: .* take 1 MB .*, of which 1 MB are free; take .*off"
    ) as told:
        plan_of(root, cache)
    assert "\n" not in str(told.value)


def test_a_glance_at_some_photos_is_enough_to_refuse_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def pixels_of(_: Pool, indices: list[int]) -> Any:
        looked.extend(indices)
        return np.full(len(indices), 1000)

    monkeypatch.setattr(opening, "pixels_of", pixels_of)
    monkeypatch.setattr(opening, "free_memory", lambda: 10**6)
    dataset = load_dataset("shapes-fine")
    samples = [Sample(f"{n}.jpg", "", dataset.name) for n in range(3000)]
    pool = Pool(samples, {dataset.name: dataset}, LabelUnion([dataset.labels]))
    with pytest.raises(ResourceError, match="of 3,000 images take 12 MB of memory"):
        with_cache(Plan(recipe=resolve({"run": {"cache": "memory"}}), pool=pool, validation=None), CPU, ALONE)
    assert len(looked) == 256


def test_free_memory_is_the_least_that_the_machine_and_its_control_groups_leave(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert free_memory(tmp_path) is None
    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory(tmp_path) == 5000 * 1024
    write("proc/self/cgroup", "4:memory:/job/step\n0::/outer/inner\n")
    for group, most in (("outer", "4000000"), ("outer/inner", "max")):
        write(f"sys/fs/cgroup/{group}/memory.max", f"{most}\n")
        write(f"sys/fs/cgroup/{group}/memory.current", "3000000\n")
        write(f"sys/fs/cgroup/{group}/memory.stat", "anon 7\ninactive_file 500000\n")
    assert free_memory(tmp_path) == 1_500_000
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000")  # of the whole container
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1900000")
    assert free_memory(tmp_path) == 100_000


# Runs


@pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")
def test_runs_have_the_same_losses_and_weights_with_any_cache_and_go_on_with_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretrain(cache: str, **more: Any) -> Path:
        changes = [("data.root", str(root)), ("pretrain.datasets", ["voc", "ade20k"]), ("run.cache", cache)]
        return run_pretraining(request(*changes, ("pretrain.batch_size", 2), ("pretrain.steps", 5), **more))

    plain = pretrain("off", out=Path("plain"))
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        with pytest.raises(MdpError, match="stopped by SIGTERM"):
            pretrain("memory", out=Path("kept"))
    kept = run_pretraining(request(("run.cache", "device"), resume="kept", layers=({"run": {"cache": "device"}},)))
    assert losses(plain) == losses(kept)
    assert_same(tensors_of(plain), tensors_of(kept))


@pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")
def test_fine_tuning_trains_and_scores_alike_with_any_cache(root: Path) -> None:
    runs = []
    for cache in ("off", "memory", "device"):
        changes = [("data.root", str(root)), ("finetune.target", "voc"), ("run.cache", cache), ("finetune.steps", 3)]
        runs.append(run_finetuning(request(*changes, ("finetune.batch_size", 2), init="scratch", out=Path(cache))))
    for run in runs[1:]:
        assert losses(run) == losses(runs[0])
        assert_same(tensors_of(run), tensors_of(runs[0]))
    assert len({(run / "results.csv").read_text().partition("\n")[0] for run in runs}) == 1


def test_a_plan_of_pretraining_keeps_of_the_validation_what_is_scored(root: Path) -> None:
    recipe = resolve(
        {"run": {"cache": "memory"}, "data": {"root": str(root)}},
        {"pretrain": {"datasets": ["voc"], "validate_images": 1, "batch_size": 2}},
    )
    plan = with_cache(plan_pretraining(recipe), CPU, ALONE)
    assert plan.validation
    assert plan.validation.kept
    assert [bool(size) for size in plan.validation.kept.places.photos] == [True, False]


@pytest.mark.parametrize("cache", ["memory", "device"])
def test_a_dry_run_says_the_bytes_that_a_run_then_keeps(root: Path, cache: str) -> None:
    def asked(name: str) -> Request:
        small = {"backbone": "resnet18", "width": 8, "channels": 8, "dilations": [1, 2]}
        own = {"datasets": [name], "batch_size": 2, "validate_images": 1}
        layer = {"run": {"cache": cache}, "data": {"root": str(root)}, "pretrain": own, "model": small}
        return Request(layers=(layer,))

    recipe = resolve(*asked("voc").layers)
    line = with_cache(plan_pretraining(recipe), CPU, ALONE).lines[-1]
    kept = describe_pretraining(asked("voc"))["cache_bytes"]
    assert set(kept) == {"memory"}
    assert f"take up to {opening.size(kept['memory'])} of memory" in line
    assert kept["memory"] >= 4 * 50 * 70  # a photo of that size, and its classes
    if cache == "memory":
        assert describe_pretraining(asked("cityscapes"))["cache_bytes"] is None  # which is not there
        on_gpu = cache_bytes(replace(plan_of(root, "off"), recipe=resolve({"run": {"cache": "device"}})), DEVICE, ALONE)
        assert set(on_gpu) == {"device"}


def test_a_dataset_without_images_to_score_has_none_to_keep(root: Path) -> None:
    plan = plan_of(root, "off")
    empty = plan.pool._replace(samples=[])
    recipe = resolve({"run": {"cache": "memory"}})
    kept = with_cache(replace(plan, recipe=recipe, validation=empty, scored=()), CPU, ALONE)
    assert kept.pool.kept
    assert "those that are scored" not in kept.lines[-1]


# Devices


def test_bytes_that_are_resized_as_floats_are_within_one_of_those_in_whole_numbers() -> None:
    image = torch.randint(0, 256, (3, 61, 83), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for size in ((24, 24), (61, 83), (90, 40)):
        whole = cut_image(image, View(Box(0, 0, 61, 83), False), size)
        apart = (whole.int() - _resized_bytes(image[None], size)[0].int()).abs()
        assert apart.max() <= 1
        assert apart.float().mean() < 0.25


@pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "there is a guard")
@pytest.mark.parametrize("kind", ["views", "windows"])
def test_a_gpu_cuts_crops_from_what_it_has_without_waiting(kind: str, root: Path) -> None:
    plan = plan_of(root, "device", draws_by_labels=kind == "windows")
    kept, stack = plan.pool.kept, stack_views if kind == "views" else stack_crops
    assert kept
    items: Any = PretrainItems(plan.pool, VIEWS, 3) if kind == "views" else FinetuneItems(plan.pool, WINDOWS, 3)
    drawing, near = Drawing(items, kept), OnDevice(items, kept, stack, DEVICE)  # type: ignore[arg-type]
    with FakeCuda() as report:
        for epoch in range(2):
            asked = stack_asked([drawing[epoch, index] for index in range(3)])  # type: ignore[misc]
            assert [whole is None for whole in asked.whole] == [epoch == 1] * 3
            with report.in_phase(f"epoch {epoch}"):
                batch = near.cut_(asked)
            tensors = parts_of((batch.images, batch.labels))
            assert {tensor.device.type for tensor in tensors} == {"cuda"}
            assert [tensor.dtype for tensor in tensors] == [torch.uint8, torch.int16]
        assert report.count(WAIT, "epoch 0") == report.count(COPY, "epoch 0") == 0, report.notes
        assert report.bytes_to_device["epoch 1"] < 100 < report.bytes_to_device["epoch 0"]


def test_samples_that_cannot_be_read_leave_an_empty_batch_empty(root: Path) -> None:
    plan = plan_of(root, "device")
    assert plan.pool.kept
    near = OnDevice(PretrainItems(plan.pool, VIEWS, 3), plan.pool.kept, stack_views, CPU)  # type: ignore[arg-type]
    assert list(to_device((batch for batch in ([],)), CPU, near.cut_)) == [[]]
