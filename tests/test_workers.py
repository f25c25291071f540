"""A loader's workers: how a batch gets out of them, and what becomes of a run whose workers are killed or stopped."""

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.io.data import handing_over, loader
from mdp.io.data.handing_over import Sender, memory_files, shared_memory
from mdp.io.data.loader import load
from mdp.io.data.workers import Watch, quiet
from mdp.io.errors import Preempted, ResourceError
from mdp.io.run.header import read_about
from tests import preloaded
from tests.patience import wait_until
from tests.small_runs import assert_same, tensors_of

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
needs_memory_files = pytest.mark.skipif(not memory_files(), reason="this system has no memory files")


# Handing over


class Batch(NamedTuple):
    images: Tensor
    labels: Tensor
    others: tuple[Any, ...]


@needs_memory_files
@given(st.lists(st.integers(0, 5), max_size=4), st.randoms(use_true_random=False), st.integers(0, 2**31))
def test_a_batch_arrives_as_it_was_sent_bits_strides_and_all(shape: list[int], chance: Any, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    axes = list(range(len(shape)))
    chance.shuffle(axes)
    images = torch.randn(shape, generator=rng).permute(axes)
    labels = torch.randint(-5, 9, (3, 4), generator=rng, dtype=torch.int16)[:, ::2]
    sent = Batch(images, labels, (images > 0, torch.tensor(2.5, dtype=torch.float64), ["a", 7, None]))
    sender = Sender(kept=1)
    found = sender.send(sent).opened()
    os.close(sender.open.pop())
    assert_same_things(found, sent)
    if not {0, 1} & set(shape):  # strides of axes of one tell nothing
        assert found.images.stride() == images.stride()
    found.images.zero_()  # its memory is nobody else's
    found.labels.zero_()


def assert_same_things(found: Any, sent: Any) -> None:
    assert type(found) is type(sent)
    if isinstance(sent, Tensor):
        assert found.dtype == sent.dtype
        assert torch.equal(found, sent)
    elif isinstance(sent, tuple | list):
        for one, other in zip(found, sent, strict=True):
            assert_same_things(one, other)
    else:
        assert found == sent


@needs_memory_files
def test_a_sender_keeps_only_its_last_files_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    sender = Sender(kept=3)
    sent = [sender.send(torch.full((4,), number)) for number in range(10)]
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 4  # one more lists them
    assert [int(one.opened()[0]) for one in sent[-3:]] == [7, 8, 9]
    for descriptor in sender.open:
        os.close(descriptor)


def test_small_shared_memory_is_said_and_enough_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(handing_over, "_ENOUGH", 0)
    assert shared_memory(tmp_path) == ""
    monkeypatch.setattr(handing_over, "_ENOUGH", 2**80)
    assert shared_memory(tmp_path).startswith(f"shared memory is small ({tmp_path}: ") or not memory_files()
    assert shared_memory(tmp_path / "none") == ""


# Workers that end, or stand still


class Trouble:
    """Items that are tensors; the worker that comes to one of them sends itself a signal."""

    def __init__(self, at: int, number: int) -> None:
        self.at, self.number = at, number

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        if key[1] == self.at:
            os.kill(os.getpid(), self.number)
        return torch.full((1000,), key[1])


def batches() -> Iterator[list[tuple[int, int]]]:
    return iter([[(0, index), (0, index + 1)] for index in range(0, 40, 2)])


def workers_left() -> list[Any]:
    return [process for process in multiprocessing.active_children() if process.daemon]


@pytest.mark.parametrize("at", [0, 3, 17])
def test_a_killed_worker_is_one_line_at_the_next_batch_and_nowhere_else(at: int) -> None:
    found = []

    def take() -> None:
        for batch in load(Trouble(at, signal.SIGKILL), batches(), 2):
            found.append([int(item[0]) for item in batch])
            time.sleep(0.05)  # torch would raise the worker's death here

    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(ResourceError, match=r"^loader process \d+ died \(SIGKILL\); .* try fewer --workers"):
        take()
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert found == [[index, index + 1] for index in range(0, 40, 2)][: len(found)]
    assert len(found) <= at // 2
    assert workers_left() == []


def test_a_stopped_worker_is_named_with_its_sample_and_goes_on_when_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "POLL", 0.02)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        for process in workers_left():
            os.kill(process.pid, signal.SIGCONT)

    watch = Watch(name=lambda key: f"photo {key[1]}", say=say)
    found = [int(item[0]) for batch in load(Trouble(6, signal.SIGSTOP), batches(), 2, watch=watch) for item in batch]
    assert found == list(range(40))
    assert len(said) == 1
    # what the worker had made before, it may have kept with it
    batch = r"the batch of photo [26] and 1 more has not come for 20 s"
    assert re.match(rf"warning: {batch}: loader process \d+ was stopped by a signal; `kill -CONT \d+`", said[0])


def test_a_worker_that_stays_stopped_ends_the_loader_and_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "POLL", 0.002)
    with pytest.raises(ResourceError, match="was stopped by a signal"):
        list(load(Trouble(6, signal.SIGSTOP), batches(), 2))
    assert workers_left() == []


def test_a_signal_is_answered_while_a_worker_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "POLL", 0.02)
    stop: list[bool] = []
    watch = Watch(say=lambda text: stop.append(True), stop=lambda: stop)
    with pytest.raises(Preempted, match="while waiting for data"):
        list(load(Trouble(6, signal.SIGSTOP), batches(), 2, watch=watch))
    assert workers_left() == []


def test_a_loader_that_is_left_early_leaves_no_worker() -> None:
    loaded = load(Trouble(-1, 0), batches(), 3)
    next(loaded)
    assert len(workers_left()) == 3
    loaded.close()
    assert workers_left() == []


# Whole runs


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_run_whose_worker_stands_still_is_saved_by_a_signal() -> None:
    words = "-m mdp pretrain --datasets shapes-coarse,shapes-fine --backbone resnet18 --out run --workers 1 --resume"
    small = (
        "run.threads=1 model.width=8 model.channels=8 model.dilations=[1,2] model.output_stride=16 method.embedding=8 "
        "method.hidden=8 pretrain.crop=32 pretrain.validate_epochs=0 pretrain.validate_images=0 pretrain.batch_size=4 "
        "pretrain.steps=5000"
    )
    command = [*words.split(), *(word for setting in small.split() for word in ("--set", setting))]
    with preloaded.Started(command, Path()) as started:
        wait_until(lambda: workers_of(started.pid) and steps_in(Path("run")), "the first step")
        for worker in workers_of(started.pid):
            os.kill(worker, signal.SIGSTOP)
        started.send_signal(signal.SIGTERM)
        _, err = started.communicate()
        assert started.returncode == 75, err
    assert "go on with: mdp pretrain --resume run" in err
    assert "Traceback" not in err
    assert 0 < read_about(Path("run/checkpoints/last.safetensors"))["step"] == steps_in(Path("run"))


def workers_of(process: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def steps_in(run: Path) -> int:
    log = run / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


SMALL_SHARED_MEMORY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
user, group = os.getuid(), os.getgid()
if libc.unshare(0x10000000 | 0x00020000):  # a namespace of users, in which we may mount, and of mounts
    sys.exit(77)
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    try:
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    except OSError:
        sys.exit(77)
if libc.mount(None, b"/", None, 0x4000 | 0x40000, None) or libc.mount(b"t", b"/dev/shm", b"tmpfs", 0, b"size=256k"):
    sys.exit(77)
open("/dev/shm/full", "wb").write(bytes(128 * 1024))
import runpy
sys.argv = ["mdp", *sys.argv[1:]]
runpy.run_module("mdp", run_name="__main__", alter_sys=True)
"""


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_run_goes_on_where_shared_memory_is_nearly_full_and_says_how() -> None:
    words = "pretrain --datasets shapes-coarse,shapes-fine --backbone resnet18 --workers 2 --out"
    small = (
        "run.threads=1 model.width=8 model.channels=8 model.dilations=[1,2] model.output_stride=16 method.embedding=8 "
        "method.hidden=8 pretrain.crop=96 pretrain.validate_epochs=0 pretrain.validate_images=0 pretrain.batch_size=8 "
        "pretrain.steps=2"
    )
    settings = [word for setting in small.split() for word in ("--set", setting)]
    done = preloaded.run(["-c", SMALL_SHARED_MEMORY, *words.split(), "run", *settings], Path())
    if done.code == 77:
        pytest.skip("no right to mount a file system of our own")
    assert done.code == 0, done.err
    assert "shared memory is small (/dev/shm: 0 MiB free): the loader hands batches over in memory files" in done.err
    assert preloaded.run(["-m", "mdp", *words.split(), "whole", *settings], Path()).code == 0
    assert_same(tensors_of(Path("run")), tensors_of(Path("whole")))


def _work_as_an_orphan(parent: int, pipe: int) -> None:
    wait_until(lambda: os.getppid() != parent, "the end of the main process")
    quiet()
    os.write(pipe, b"goes on")


def test_a_worker_whose_main_process_was_killed_as_it_was_born_ends() -> None:
    """torch begins to look for that later than this."""
    reading, writing = os.pipe()
    main = os.fork()
    if main == 0:
        context = multiprocessing.get_context("fork")
        context.Process(target=_work_as_an_orphan, args=(os.getpid(), writing)).start()
        os._exit(0)
    os.close(writing)
    os.waitpid(main, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b""
