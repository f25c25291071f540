"""Run folders: which is the newest, what stands for a run, and that one process at a time writes there."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mdp.io.errors import CheckpointError, RecipeError, ResourceError
from mdp.io.run import folder as run_folder
from mdp.io.run import lock
from mdp.io.run.checkpoint import save
from mdp.io.run.lock import locked


def run_with(folder: Path, *names: str, started: float | None = None, kind: str = "pretrain") -> Path:
    """A run folder with checkpoints of these names; without a start time it has no command.txt."""
    (folder / "checkpoints").mkdir(parents=True)
    for name in names:
        save(folder / "checkpoints" / f"{name}.safetensors", {"a": torch.zeros(1)}, {"step": 1, "kind": kind})
    if started is not None:
        (folder / "command.txt").touch()
        os.utime(folder / "command.txt", (started, started))
    return folder


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("runs/pretrain")


def test_the_newest_run_has_the_latest_start_and_a_checkpoint(base: Path) -> None:
    assert run_folder.newest("pretrain") is None
    run_with(base / "z", "last", started=100)
    later = run_with(base / "a", "last", started=200)
    run_with(base / "none", started=300)
    assert run_folder.newest("pretrain") == later
    assert run_folder.newest("finetune") is None


def test_a_folder_without_command_txt_counts_by_its_own_time(base: Path) -> None:
    run_with(base / "old", "last", started=100)
    bare = run_with(base / "bare", "last")
    assert run_folder.newest("pretrain") == bare
    os.utime(bare, (50, 50))
    assert run_folder.newest("pretrain") == base / "old"


def test_a_run_that_out_put_into_runs_itself_is_found_by_its_kind(base: Path) -> None:
    run_with(base / "old", "last", started=100)
    tuned = run_with(base.parent / "tuned", "best", started=300, kind="finetune")
    own = run_with(base.parent / "own", "last", started=200, kind="pretrain")
    run_with(base.parent / "study" / "cells" / "a", "last", started=400, kind="pretrain")
    assert run_folder.newest("pretrain") == own
    assert run_folder.newest("finetune") == tuned
    assert run_folder.known() == [own, base / "old", tuned]
    (own / "checkpoints" / "last.safetensors").write_bytes(b"damaged")
    assert run_folder.newest("pretrain") == base / "old"


@pytest.mark.parametrize("name", ["previous", "best", "step_00000007"])
def test_a_run_that_was_killed_between_two_renames_is_still_the_newest(base: Path, name: str) -> None:
    run_with(base / "old", "last", started=100)
    killed = run_with(base / "killed", name, started=200)
    assert run_folder.newest("pretrain") == killed


def test_a_run_stands_for_the_checkpoint_asked_for_or_the_last(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", "last", "best", "previous")
    assert run_folder.checkpoint_of(folder).stem == "last"
    assert run_folder.checkpoint_of(folder, "best").stem == "best"
    (folder / "checkpoints" / "best.safetensors").unlink()
    assert run_folder.checkpoint_of(folder, "best").stem == "last"
    assert run_folder.checkpoint_of(folder / "checkpoints" / "last.safetensors").stem == "last"
    (folder / "checkpoints" / "last.safetensors").unlink()
    assert run_folder.checkpoint_of(folder).stem == "previous"
    (folder / "checkpoints" / "previous.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoints/last\.safetensors"):
        run_folder.checkpoint_of(folder)


def test_names_of_kept_checkpoints_sort_as_their_steps() -> None:
    assert run_folder.keep_name(1000) == "step_00001000"
    assert sorted(map(run_folder.keep_name, (1000, 50, 900))) == [
        run_folder.keep_name(step) for step in (50, 900, 1000)
    ]


# Locks

HOLD = """
import sys
from pathlib import Path
from mdp.io.run.lock import locked
with locked(Path(sys.argv[1])) as warning:
    print(repr(warning), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of tmp_path until it is ended."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "''\n"
        yield process
        process.kill()


def refusal(folder: Path) -> str:
    with pytest.raises(ResourceError) as caught, locked(folder):
        pass
    return str(caught.value)


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path} is in use by process {holder.pid} on ")
    assert message.endswith("; wait for it or use another --out")
    assert " since 20" in message
    assert refusal(tmp_path) == message  # and a third: being refused takes nothing away


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    (tmp_path / ".lock").write_text("x" * 1000)  # whatever it says
    with locked(tmp_path) as warning:
        assert warning == ""
        assert json.loads((tmp_path / ".lock").read_bytes())["process"] == os.getpid()


def test_the_lock_is_free_when_the_block_ends_also_by_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path):
            raise KeyError
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        done = subprocess.run(command, input="\n", text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, "''\n"), done.stderr


def test_a_process_that_holds_the_lock_goes_on_and_keeps_it(tmp_path: Path) -> None:
    with locked(tmp_path):
        with locked(tmp_path / "." / ""):
            pass
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], input="\n", text=True, capture_output=True, check=False
        )
    assert done.returncode != 0
    assert f"in use by process {os.getpid()}" in done.stderr


FORK = """
import os, sys, time
from pathlib import Path
from mdp.io.errors import ResourceError
from mdp.io.run.lock import locked
folder = Path(sys.argv[1])
with locked(folder):
    child = os.fork()
    if child == 0:
        try:
            with locked(folder):
                os._exit(1)
        except ResourceError:
            print("refused", flush=True)
            os.close(1)
            time.sleep(9999)
            os._exit(0)
    sys.stdin.readline()
    os._exit(0)
"""


def test_a_forked_child_neither_has_the_lock_nor_keeps_it_from_being_freed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "refused\n"
        assert "in use by process" in refusal(tmp_path)
        process.kill()  # the child lives on, with all the descriptors it got
        process.wait()
        with locked(tmp_path) as warning:
            assert warning == ""
        os.killpg(process.pid, 9)


def test_a_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with locked(tmp_path) as warning:
        assert warning.startswith(f"{tmp_path}: this file system keeps no locks (No locks available)")


def test_a_lock_that_cannot_be_made_names_the_file(tmp_path: Path) -> None:
    assert "cannot be locked: No such file" in refusal(tmp_path / "nothing")
    (tmp_path / ".lock").mkdir()
    assert refusal(tmp_path) == f"{tmp_path / '.lock'}: cannot be made: Is a directory"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_a_lock_file_that_says_nothing_is_still_a_lock(
    tmp_path: Path, holder: subprocess.Popen[str], text: bytes
) -> None:
    # written by another process: closing the file here would be all right, too, for the lock is not ours
    (tmp_path / ".lock").write_bytes(text)
    assert "in use by another process;" in refusal(tmp_path)


def test_a_run_that_is_alive_is_not_overwritten(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    (tmp_path / "status.json").touch()
    with pytest.raises(ResourceError, match=f"in use by process {holder.pid}"):
        run_folder.create("pretrain", "x", tmp_path, overwrite=True)
    assert (tmp_path / "status.json").exists()


def test_overwriting_removes_everything_but_the_lock(tmp_path: Path) -> None:
    run_with(tmp_path / "run", "last", started=1)
    (tmp_path / "run" / "status.json").touch()
    (tmp_path / "run" / "link").symlink_to(tmp_path)
    with pytest.raises(RecipeError, match="not empty"):
        run_folder.create("pretrain", "x", tmp_path / "run", overwrite=False)
    run_folder.create("pretrain", "x", tmp_path / "run", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [lock.NAME, "checkpoints"]
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_folder_with_nothing_but_a_lock_counts_as_empty(tmp_path: Path) -> None:
    with locked(tmp_path / ""):
        pass
    assert run_folder.create("pretrain", "x", tmp_path, overwrite=False) == tmp_path
