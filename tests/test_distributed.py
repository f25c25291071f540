"""Several processes equal one: in a step and a score, in whole runs, and in how they end."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mdp.io.processes.world import ALONE, _name_start
from mdp.io.run.checkpoint import load
from tests import ranks

ROOT = Path(__file__).parent.parent
RUN = [
    "--datasets", "shapes-coarse,shapes-fine", "--backbone", "resnet18", "--batch-size", "8", "--no-check",
    *(word for pair in (
        "model.width=8", "model.channels=8", "model.dilations=[1,2]", "model.output_stride=16", "method.embedding=8",
        "method.hidden=8", "pretrain.crop=32", "pretrain.validate_epochs=0", "pretrain.validate_images=3",
    ) for word in ("--set", pair)),
]  # fmt: skip


def environment(**others: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **others}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def in_processes(count: int, *arguments: str) -> None:
    """Runs `python ARGUMENTS` as so many ranks and waits for all."""
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment(**place, RANK=str(rank), LOCAL_RANK=str(rank))
        )
        for rank in range(count)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0] * count


def mdp(*arguments: str, cwd: Path, **others: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mdp", *arguments], cwd=cwd, env=environment(**others), capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "checkpoints" / "last.safetensors").tensors


@pytest.mark.parametrize("count", [2, 3])
def test_processes_give_loss_prototypes_gradients_and_confusion_of_one(count: int, tmp_path: Path) -> None:
    alone = ranks.everything(ALONE)
    in_processes(count, "-m", "tests.ranks", str(tmp_path / "answer.pt"))
    together = torch.load(tmp_path / "answer.pt", weights_only=True)
    assert together.keys() == alone.keys()
    for name, expected in alone.items():
        if not expected.is_floating_point():
            assert torch.equal(together[name], expected), name
        else:
            difference = (together[name].double() - expected.double()).norm()
            assert difference <= 1e-6 * expected.double().norm() + 1e-12, (name, float(difference))


def test_a_run_of_two_processes_stops_and_goes_on_to_the_same_bits_and_with_one_to_the_same_data(
    tmp_path: Path,
) -> None:
    """Mixing, two loader workers and a stop in mid-epoch; the launcher passes the signal and the exit code on."""
    arguments = ["pretrain", *RUN, "--steps", "40", "--mix", "both", "--workers", "1", "--processes", "2"]
    whole = mdp(*arguments, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert "2 processes with 4 + 4 images each" in whole.stderr
    assert whole.stdout == "whole\n"
    assert re.search(r"slowest: \w+ \d+% \(.*communication \d+%|slowest: communication", whole.stderr)
    assert 0 < communication(tmp_path / "whole") < 1
    with subprocess.Popen(
        [sys.executable, "-m", "mdp", *arguments, "--out", "stopped", "--resume"],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_for_steps(tmp_path / "stopped", 2)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    assert json.loads((tmp_path / "stopped" / "status.json").read_text())["state"] == "preempted"
    shutil.copytree(tmp_path / "stopped", tmp_path / "other")
    again = mdp(*arguments, "--out", "stopped", "--resume", cwd=tmp_path)  # the same command
    assert again.returncode == 0, again.stderr
    for name, tensor in final(tmp_path / "whole").items():
        assert torch.equal(final(tmp_path / "stopped")[name], tensor), name
    alone = mdp("pretrain", "--resume", "other", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert "processes: 2 before, 1 now" in alone.stderr


def communication(folder: Path) -> float:
    """The share of time in collectives that the last row of results.csv has."""
    *_, last = csv.DictReader((folder / "results.csv").read_text().splitlines())
    return float(last["communication"])


def wait_for_steps(folder: Path, steps: int) -> None:
    """Waits until the run has done so many steps."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.is_file() and metrics.read_text().count('"train"') >= steps:
            return
        time.sleep(0.05)
    raise AssertionError(f"{folder}: not {steps} steps in 100 seconds")


def test_a_process_that_dies_ends_the_run_with_its_number_and_the_run_can_go_on(tmp_path: Path) -> None:
    arguments = ["pretrain", *RUN, "--steps", "500", "--workers", "0", "--processes", "2", "--out", "run"]
    with subprocess.Popen(
        [sys.executable, "-m", "mdp", *arguments], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_steps(tmp_path / "run", 2)
        os.kill(worker_of(process.pid, rank=1), signal.SIGKILL)
        began = time.monotonic()
        _, error = process.communicate(timeout=60)
    assert process.returncode == 8
    assert time.monotonic() - began < 30
    assert [line for line in error.splitlines() if "rror" in line or "[" in line] == [
        "error: process 1 of 2 was ended by signal 9; the newest checkpoint is whole: go on with --resume"
    ]
    again = mdp("pretrain", "--resume", "run", "--set", "run.log_seconds=1", "--print-config", cwd=tmp_path)
    assert again.returncode == 0


def test_a_mistake_is_told_in_one_line_whatever_the_number_of_processes(tmp_path: Path) -> None:
    """And nothing is left in the folder of temporary files."""
    (tmp_path / "temporary").mkdir()
    asked = ["pretrain", *RUN, "--steps", "3", "--processes", "2", "--set", "pretrain.lrr=1"]
    ended = mdp(*asked, cwd=tmp_path, TMPDIR=str(tmp_path / "temporary"))
    assert ended.stderr == "error: recipe: unknown setting pretrain.lrr; did you mean 'lr'?\n"
    assert ended.returncode == 2
    assert not list((tmp_path / "temporary").iterdir())


def worker_of(launcher: int, rank: int) -> int:
    """The process of that rank which the launcher has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(re.search(r"PPid:\s+(\d+)", (folder / "status").read_text()).group(1))  # type: ignore[union-attr]
            if parent == launcher and f"\0RANK={rank}\0" in "\0" + (folder / "environ").read_text():
                return int(folder.name)
        except (OSError, AttributeError):
            continue
    raise AssertionError(f"no process of rank {rank} under {launcher}")


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


def test_a_run_under_torchrun_is_restarted_when_a_process_dies_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    arguments = [
        "pretrain",
        *RUN,
        "--steps",
        "60",
        "--mix",
        "both",
        "--workers",
        "1",
        "--set",
        "run.checkpoint_minutes=0.01",
    ]
    whole = mdp(*arguments, "--processes", "2", "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    with subprocess.Popen(
        [sys.executable, *torchrun, "-m", "mdp", *arguments, "--out", "killed"],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_for_steps(tmp_path / "killed", 20)
        os.kill(worker_of(process.pid, rank=1), signal.SIGKILL)
        _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert "resuming killed after step" in error
    for name, tensor in final(tmp_path / "whole").items():
        assert torch.equal(final(tmp_path / "killed")[name], tensor), name
