"""Runs on tensors that say they are on CUDA: nothing is mixed with the CPU, as far as a machine without a GPU can tell.

All cases: `python -m tests.fake_cuda`.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mdp.core.autoaugment import FIXED, MATRICES, PIXELS, TABLES
from mdp.core.autoaugment_batched import augment_batch
from mdp.core.bank_entries import BLOCK
from mdp.core.methods import multi_dataset
from mdp.core.networks.batchnorm import Synchronised
from mdp.core.prototype_bank import ClassSums, PrototypeBank, Prototypes, empty_bank, hold_rows, push
from mdp.io.processes.world import World
from tests import whole_steps
from tests.fake_cuda import DEVICE, FakeCuda, on_device
from tests.fake_cuda.cases import BRIEF, STEP, TUNING_WAYS, WAYS, Case, Way, cases, fewest, method_case
from tests.fake_cuda.guard import unavailable
from tests.fake_cuda.report import COPY, WAIT
from tests.whole_steps import Sizes, Training, made_views, method_layer

pytestmark = [
    pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "there is a guard"),
    pytest.mark.usefixtures("in_an_empty_folder"),
]


@pytest.mark.parametrize("case", list(fewest()), ids=lambda case: case.name)
def test_a_run_on_cuda_mixes_no_devices_shapes_or_dtypes_and_a_step_waits_once(case: Case) -> None:
    report = case.run()
    assert sum(report.launches.values()) > 100
    step = STEP if report.launches_in(STEP) else BRIEF
    # pixel contrast draws by what the network gets wrong, and asks its memory first; Lovasz has a sort for each class
    waits = 3 if "contrast" in case.name else 2 if "lovasz" in case.name else 1
    if not case.name.startswith("inference"):
        assert (report.count(WAIT, step), report.count(COPY, step)) == (waits, 0), list(report.lines(step))


def test_two_processes_wait_once_a_step_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_reduce", "all_gather", "all_to_all_single"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)  # whatever comes, shapes are right
    monkeypatch.setattr(whole_steps, "ALONE", World(0, 2))
    with (mode := FakeCuda()) as report:
        layer, sizes = method_layer("multi_dataset, mix"), Sizes()
        training = Training(layer, DEVICE, {"precision": "bf16", "gradients": "flat"}, sizes)
        mode.learns(training.run.trainee.network)
        assert any(isinstance(part, Synchronised) for part in training.run.pair.key.modules())
        training.items = [made_views(Sizes(batch=sizes.batch // 2), seed) for seed in range(2)]
        for step in (BRIEF, STEP):
            with report.in_phase(step):
                training.advance()
    assert (report.count(WAIT, STEP), report.count(COPY, STEP)) == (1, 0), list(report.lines(STEP))


def test_the_fewest_cases_are_some_of_all_and_meet_every_way() -> None:
    every, some = {case.name for case in cases()}, {case.name for case in fewest()}
    assert some < every
    for ways, starts_so in ((WAYS, False), (TUNING_WAYS, True)):
        for way in ways:
            assert any(name.endswith(f", {way}") and name.startswith("finetune") == starts_so for name in some), way


def test_a_tensor_that_stayed_on_the_cpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = multi_dataset.prototypes

    def planted(bank: PrototypeBank, normalise: bool = True) -> Prototypes:
        known = original(bank, normalise)
        return known._replace(present=torch.ones(len(known.present), dtype=torch.bool))

    monkeypatch.setattr(multi_dataset, "prototypes", planted)
    with pytest.raises(RuntimeError, match=r"cuda:0.*cpu|cpu.*cuda:0"):
        method_case("multi_dataset", Way()).run()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + torch.ones(2),
        lambda x: x @ torch.ones(2, dtype=torch.float64, device=DEVICE),
        lambda x: x + torch.ones(3, device=DEVICE),
    ],
    ids=["device", "dtype", "shape"],
)
def test_what_cuda_would_refuse_is_refused(wrong: Callable[[Tensor], Tensor]) -> None:
    with FakeCuda(), pytest.raises(RuntimeError):
        wrong(torch.ones(2, device=DEVICE))


def test_waits_and_copies_are_told_with_their_phase() -> None:
    waiting: list[Callable[[Tensor], object]] = [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.ones(2).copy_(x),
    ]
    with FakeCuda() as report:
        x = torch.ones(2, device=DEVICE)
        for number, wait in enumerate(waiting):
            with report.in_phase(f"wait {number}"):
                wait(x)
            assert report.count(WAIT, f"wait {number}") == 1, report.notes
        with report.in_phase("copies"):
            torch.ones(4).to(DEVICE)
            torch.ones(4).to(DEVICE, non_blocking=True)
        assert (report.count(COPY, "copies"), report.bytes_to_device["copies"]) == (1, 32)
        with report.in_phase("quiet"):
            x.mul(2).add(x).to(torch.bfloat16)
        assert (report.count(WAIT, "quiet"), report.launches_in("quiet")) == (0, 3)


def test_a_step_of_pretraining_is_told_with_its_lines() -> None:
    report = method_case("supervised", Way()).run()
    waits = [note.line for note in report.notes if (note.kind, note.phase) == (WAIT, STEP)]
    assert [line.partition(":")[0] for line in waits] == ["mdp/io/training/update.py"]


@pytest.mark.parametrize("deterministic", [False, True], ids=["usual", "deterministic"])
def test_autoaugment_on_cuda_stays_there_and_waits_for_nothing(deterministic: bool) -> None:
    names = [*FIXED, *TABLES, *MATRICES, *PIXELS]
    steps = [[(name, 3 + number % 7, 1), (names[number - 5], 4, -1)] for number, name in enumerate(names)]
    images = torch.zeros(len(steps), 3, 9, 12, dtype=torch.uint8)
    with FakeCuda(deterministic) as report:
        there = images.to(DEVICE)
        with report.in_phase("augment"):
            found = augment_batch(there, steps)
        assert (report.count(WAIT, "augment"), report.count(COPY, "augment")) == (0, 0), report.notes
        assert on_device(found)
        assert (found.shape, found.dtype) == (images.shape, torch.uint8)


def test_the_bank_holds_rows_on_cuda_without_a_wait_once_their_number_is_said() -> None:
    with FakeCuda() as report:
        bank = empty_bank(5, 3, BLOCK + 1, DEVICE)
        batch = ClassSums(torch.ones(5, 3, device=DEVICE), torch.ones(5, dtype=torch.int64, device=DEVICE))
        with report.in_phase("pushes"):
            for _ in range(BLOCK + 3):
                bank = hold_rows(push(bank, batch), 4)
            silent = push(push(bank, batch), batch)
        assert (report.count(WAIT, "pushes"), report.count(COPY, "pushes")) == (0, 0), report.notes
        assert [len(entry.sums) for entry in bank.window] == [4] * (BLOCK - 2) + [5] * 3
        assert all(on_device(part) for entry in silent.window for part in entry[:3] if part is not None)
        assert on_device(silent.total.sums)
        assert [entry.rows for entry in silent.window[-3:]] == [4, None, None]


def test_torch_is_left_as_it_was() -> None:
    before = torch.cuda.is_available, torch.nn.Module._apply, torch.Tensor.backward
    with FakeCuda(deterministic=True):
        assert torch.cuda.is_available()
        assert torch.are_deterministic_algorithms_enabled()
    assert before == (torch.cuda.is_available, torch.nn.Module._apply, torch.Tensor.backward)
    assert not torch.are_deterministic_algorithms_enabled()
