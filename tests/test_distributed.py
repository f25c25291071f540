"""Several processes equal one: in a step and a score, in whole runs, and in how they end."""

import csv
import json
import os
import re
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from mdp.io.processes.world import ALONE, _name_start
from mdp.io.run.checkpoint import load
from tests import ranks
from tests.conftest import ROOT
from tests.patience import LONG, wait_until
from tests.preloaded import Done, Started, run
from tests.small_runs import assert_same

RUN = [
    "--datasets", "shapes-coarse,shapes-fine", "--backbone", "resnet18", "--batch-size", "8", "--no-check",
    *(word for pair in (
        "model.width=8", "model.channels=8", "model.dilations=[1,2]", "model.output_stride=16", "method.embedding=8",
        "method.hidden=8", "pretrain.crop=32", "pretrain.validate_epochs=0", "pretrain.validate_images=3",
    ) for word in ("--set", pair)),
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def in_processes(count: int, *arguments: str, to_the_end: bool = False) -> None:
    """Runs `python ARGUMENTS` as so many ranks and waits for all."""
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        Started([*arguments], ROOT, to_the_end=to_the_end, **place, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(count)
    ]
    ended = []
    for process in started:
        with process:
            ended.append((process.wait(LONG), process.communicate()[1]))
    assert [code for code, _ in ended] == [0] * count, ended


def mdp(*arguments: str, cwd: Path, **others: str) -> Done:
    """A command, whose --processes are forks of it."""
    return run(["-m", "tests.forking", "mdp", *arguments], cwd, **environment(), **others)


def begun(*arguments: str, cwd: Path, **others: str) -> Started:
    return Started(["-m", "tests.forking", "mdp", *arguments], cwd, **environment(), **others)


def environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "checkpoints" / "last.safetensors").tensors


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    return ranks.everything(ALONE)


@pytest.mark.parametrize("count", [2, 3])
def test_processes_give_loss_prototypes_gradients_and_confusion_of_one(
    count: int, alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    in_processes(count, "-m", "tests.ranks", str(tmp_path / "answer.pt"))
    together = torch.load(tmp_path / "answer.pt", weights_only=True)
    assert together.keys() == alone.keys()
    for name, expected in alone.items():
        if not expected.is_floating_point():
            assert torch.equal(together[name], expected), name
        else:
            difference = (together[name].double() - expected.double()).norm()
            assert difference <= 1e-6 * expected.double().norm() + 1e-12, (name, float(difference))


COUNTS_ALL_THE_TIME = """
from mdp.io.processes.peers import Peers
from mdp.io.processes.world import joined
begin = Peers.__init__
def restless(peers, *about):
    begin(peers, *about)
    peers.every = 0
Peers.__init__ = restless
with joined() as world:
    world.any_true(True)
"""


def test_processes_end_while_they_are_being_counted() -> None:
    """Half of them aborted, as the interpreter ends a thread that is inside torch's store."""
    for _ in range(3):
        in_processes(2, "-c", COUNTS_ALL_THE_TIME, to_the_end=True)


WHOLE = ["pretrain", *RUN, "--steps", "8", "--mix", "both", "--workers", "1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Path]:
    """A run that nobody disturbed of two processes, each an interpreter as the launcher begins it; and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    words = ["-m", "mdp", *WHOLE, "--processes", "2", "--out", "whole"]
    return run(words, folder, **environment()), folder / "whole"


def test_a_run_of_two_processes_says_so_and_how_long_they_exchange(whole: tuple[Done, Path]) -> None:
    done, folder = whole
    assert done.code == 0, done.err
    assert "2 processes with 4 + 4 images each" in done.err
    assert done.err.count("note: 2 processes on a CPU: BatchNorm normalises with each process's own images") == 1
    assert done.out == "whole\n"
    assert re.search(r"slowest: \w+ \d+% \(.*communication \d+%|slowest: communication", done.err)
    assert 0 < communication(folder) < 1


def test_a_run_of_two_processes_stops_and_goes_on_to_the_same_bits_and_with_one_to_the_same_data(
    whole: tuple[Done, Path], tmp_path: Path
) -> None:
    """Mixing, two loader workers and a stop in mid-epoch; the launcher passes the signal and the exit code on."""
    arguments = [*WHOLE, "--processes", "2", "--out", "stopped", "--resume"]
    with begun(*arguments, cwd=tmp_path, HELD="3") as process:
        wait_until(lambda: steps_of(tmp_path / "stopped") >= 3, "three steps")
        process.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        _, error = process.communicate(LONG)
    assert process.returncode == 75, error
    assert json.loads((tmp_path / "stopped" / "status.json").read_text())["state"] == "preempted"
    shutil.copytree(tmp_path / "stopped", tmp_path / "other")
    again = mdp(*arguments, cwd=tmp_path)  # the same command
    assert again.code == 0, again.err
    assert_same(final(tmp_path / "stopped"), final(whole[1]))
    alone = mdp("pretrain", "--resume", "other", cwd=tmp_path)
    assert alone.code == 0, alone.err
    assert "processes: 2 before, 1 now" in alone.err


def communication(folder: Path) -> float:
    """The share of time in collectives that the last row of results.csv has."""
    *_, last = csv.DictReader((folder / "results.csv").read_text().splitlines())
    return float(last["communication"])


def steps_of(folder: Path) -> int:
    """How many steps the run has done."""
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count('"train"') if metrics.is_file() else 0


def test_a_process_that_dies_ends_the_run_with_its_number_and_the_run_can_go_on(tmp_path: Path) -> None:
    arguments = ["pretrain", *RUN, "--steps", "500", "--workers", "0", "--processes", "2", "--out", "run"]
    with begun(*arguments, cwd=tmp_path) as process:
        wait_until(lambda: steps_of(tmp_path / "run") >= 2, "two steps")
        os.kill(worker_of(process.pid, rank=1), signal.SIGKILL)
        _, error = process.communicate(LONG)  # an exchange waits longer for the other
    assert process.returncode == 8
    assert [line for line in error.splitlines() if "rror" in line or "[" in line] == [
        "error: process 1 of 2 was ended by signal 9; the newest checkpoint is whole: go on with --resume"
    ]
    again = mdp("pretrain", "--resume", "run", "--set", "run.log_seconds=1", "--print-config", cwd=tmp_path)
    assert again.code == 0


def test_a_process_that_stands_still_is_named_by_the_others_and_not_by_how_it_was_ended(tmp_path: Path) -> None:
    """Of three, so that one that only waits for another is not taken for it."""
    words = [
        "-m",
        "mdp",
        "pretrain",
        *RUN,
        "--steps",
        "5000",
        "--workers",
        "0",
        "--set",
        "run.timeout=4",
        "--out",
        "run",
    ]
    place = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks_ = [Started(words, tmp_path, **environment(), **place, RANK=str(r), LOCAL_RANK=str(r)) for r in range(3)]
    wait_until(lambda: steps_of(tmp_path / "run") >= 2, "two steps")
    ranks_[0].send_signal(signal.SIGSTOP)  # the main one, which would speak for all
    ended = [process.communicate(LONG)[1] for process in ranks_[1:]]
    ranks_[0].kill()
    for process in ranks_:
        with process:
            process.wait(LONG)
    assert [process.returncode for process in ranks_[1:]] == [8, 8]
    assert [line for line in ended[0].splitlines() if "rror" in line] == [
        "process 1: error: process 0 of 3 has not answered for 4 s"
    ]
    assert "rror" not in ended[1]  # one of a machine tells


def test_a_mistake_is_told_in_one_line_whatever_the_number_of_processes(tmp_path: Path) -> None:
    """And nothing is left in the folder of temporary files."""
    (tmp_path / "temporary").mkdir()
    asked = ["pretrain", *RUN, "--steps", "3", "--processes", "2", "--set", "pretrain.lrr=1"]
    ended = mdp(*asked, cwd=tmp_path, TMPDIR=str(tmp_path / "temporary"))
    assert ended.err == "error: recipe: unknown setting pretrain.lrr; did you mean 'lr'?\n"
    assert ended.code == 2
    assert not list((tmp_path / "temporary").iterdir())


def worker_of(launcher: int, rank: int) -> int:
    """The process of that rank which the launcher has started: one after the other, in their order."""
    began = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(words[1]) == launcher:
                began[int(folder.name)] = int(words[19])
    return sorted(began, key=lambda process: (began[process], process))[rank]


def test_each_start_over_a_store_that_is_kept_has_one_name_that_no_earlier_start_had() -> None:
    store = torch.distributed.HashStore()
    store.set("question/1", "left behind by a process that died before it had its answer")
    names = []
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            found = set(pool.map(lambda rank: _name_start(store, rank, 3), (0, 1, 2)))
        assert len(found) == 1
        names += found
    assert len(set(names)) == 3


def test_a_run_under_torchrun_is_restarted_when_a_process_dies_and_ends_with_the_same_bits(
    whole: tuple[Done, Path], tmp_path: Path
) -> None:
    torchrun = [
        "-m",
        "tests.forking",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "2",
    ]
    arguments = [*torchrun, "-m", "mdp", *WHOLE, "--set", "run.keep_steps=3", "--out", "killed"]
    with Started(arguments, tmp_path, **environment(), HELD="4") as process:
        wait_until(lambda: steps_of(tmp_path / "killed") >= 4, "four steps, and the checkpoint after three")
        os.kill(worker_of(process.pid, rank=1), signal.SIGKILL)
        (tmp_path / "go").touch()
        _, error = process.communicate(LONG)
    assert process.returncode == 0, error
    assert "resuming killed after step" in error
    assert_same(final(tmp_path / "killed"), final(whole[1]))
