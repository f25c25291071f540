"""The launcher: how it tells the endings of its processes as one, passes signals on and leaves nothing behind."""

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch.distributed.elastic.multiprocessing.api import SignalException

from mdp.cli import cli
from mdp.io.errors import MdpError, ProcessError
from mdp.io.processes import launcher
from mdp.io.processes.ending import Ending, leave
from mdp.io.processes.launcher import launch, verdict

SILENT = Ending(8, "error: process 1 of 2 has not answered for 9 s")
LOST, STOPPED, DONE = Ending(8, "error: lost"), Ending(75, "stopped"), Ending(0)


@pytest.mark.parametrize(
    ("endings", "code", "words"),
    [
        ([DONE, DONE], 0, ""),
        ([STOPPED, STOPPED], 75, "stopped"),
        ([LOST, STOPPED], 75, "stopped"),
        ([LOST, Ending(3, "error: a file")], 3, "process 1: error: a file"),
        ([STOPPED, Ending(3, "error: a file"), LOST], 3, "process 1: error: a file"),
        ([Ending(2, "error: typo")] * 3, 2, "error: typo"),
        ([Ending(3, "error: a"), Ending(3, "error: b")], 3, "error: a\nprocess 1: error: b"),
        ([LOST, Ending(1)], 1, ""),  # a traceback was its own
        ([LOST, LOST], 8, "error: lost"),
    ],
)
def test_the_ending_is_that_of_the_process_to_blame_told_once(endings: list[Ending], code: int, words: str) -> None:
    for order in (1, -1):  # files are found in any order
        found = dict(list(enumerate(endings))[::order])
        assert verdict(found, {}, len(endings)) == Ending(code, words)


@pytest.mark.parametrize(
    ("endings", "died", "words"),
    [
        ({0: LOST}, {1: -9}, "process 1 of 2 was ended by signal 9"),
        ({}, {1: -9}, "process 1 of 2 was ended by signal 9"),  # 0 waited for it and was ended by the launcher
        ({1: LOST}, {0: 3}, "process 0 of 2 ended without a word"),
        ({}, {1: -9, 0: -9}, "process 1 of 2 was ended by signal 9"),  # 0 hung for want of it, and was too late
        ({0: SILENT}, {0: 8, 1: -9}, "process 1 of 2 has not answered for 9 s; the newest"),  # -9 is the launcher's
        ({0: STOPPED}, {}, "process 1 of 2 did not stop within 30 s of being told to"),
    ],
)
def test_a_process_that_left_no_word_is_named(endings: dict[int, Ending], died: dict[int, int], words: str) -> None:
    with pytest.raises(ProcessError, match=words):
        verdict(endings, died, 2)


def test_a_cause_is_told_even_when_another_process_left_no_word() -> None:
    assert verdict({1: Ending(3, "error: a file")}, {}, 2).code == 3


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Temporary files in a folder of their own; signals, logs and environment are put back."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MDP_ENDINGS", "")
    monkeypatch.setattr(os, "getppid", os.getpid)  # the launcher and its processes are one
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield tmp_path
    logging.disable(logging.NOTSET)
    for number, handler in before.items():
        signal.signal(number, handler)


def played(monkeypatch: pytest.MonkeyPatch, run: Callable[[], None]) -> None:
    """Puts `run` in the place of torch's launcher, which turns SIGTERM into an exception."""

    def term(number: int, _: Any) -> None:
        raise SignalException("told", signal.Signals(number))

    def elastic_launch(config: Any, entry: str) -> Callable[..., None]:
        def start(*arguments: str) -> None:
            assert arguments == ("-m", "mdp", "pretrain", "--steps", "3")
            signal.signal(signal.SIGTERM, term)
            run()

        return start

    monkeypatch.setattr(launcher, "elastic_launch", elastic_launch)


MISTAKES = [  # what is asked for, the exit code, what is said
    (["--config", "unknown.yaml"], 2, "unknown.yaml: unknown setting pretrain.lrr; did you mean 'lr'?"),
    (["--config", "value.yaml"], 2, "value.yaml: pretrain.lr: expected a number, got 'fast'"),
    (["--config", "missing.yaml"], 2, "missing.yaml: the YAML file is missing"),
    (["--method", "mocko"], 2, "recipe: method.name: unknown method 'mocko'; did you mean 'moco'?"),
    (["--datasets", "vok"], 2, "unknown dataset 'vok'; did you mean 'voc'?"),
    (["--datasets", "voc", "--root", "nowhere"], 3, "voc: not found; looked for nowhere/VOCdevkit"),
    (["--batch-size", "2", "--accumulate", "2"], 2, "leaves fewer than 1 image(s) a part"),
    (["--resume", "nowhere"], 5, "nowhere: expected a run folder, found nothing"),
    (["--init-partial", "--lr", "nan"], 2, "recipe: pretrain.lr: expected 0 or more, got nan"),
]


@pytest.mark.parametrize(("asked", "code", "words"), MISTAKES, ids=lambda value: "" if value in (2, 3, 5) else None)
def test_a_mistake_is_refused_before_a_process_is_started(
    asked: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", started)
    Path("unknown.yaml").write_text("pretrain: {lrr: 1}")
    Path("value.yaml").write_text("pretrain: {lr: fast}")
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(cli, ["pretrain", "--datasets", "shapes-coarse", *asked, "--processes", "2"])
    assert isinstance(done.exception, MdpError)
    assert words in str(done.exception)
    assert done.exception.exit_code == code
    assert sorted(tmp_path.iterdir()) == before
    for command in (["finetune", "--target", "vok", "--init", "scratch"], ["eval", "nowhere"]):
        refused = CliRunner().invoke(cli, [*command, "--processes", "2"]).exception
        assert isinstance(refused, MdpError)
        assert "vok" in str(refused) or "nowhere" in str(refused)


def test_sigusr1_to_the_launcher_is_a_sigterm_to_its_processes(
    unchanged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            assert leave(Ending(75, "stopped by SIGTERM\nin two lines, é"))
        os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("the processes were not told")

    played(monkeypatch, run)
    assert launch(2, ["pretrain", "--steps", "3"]) == 75
    assert capsys.readouterr().err == "stopped by SIGTERM\nin two lines, é\n"
    assert not list(unchanged.iterdir())  # torch would have left a folder of logs


def test_without_a_launcher_that_is_alive_no_ending_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MDP_ENDINGS", raising=False)
    monkeypatch.setenv("RANK", "0")
    assert not leave(DONE)
    for name, mine in (("1", False), (str(os.getppid()), True)):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("MDP_ENDINGS", str(tmp_path / name))
        assert leave(DONE) == mine
    monkeypatch.setenv("MDP_ENDINGS", f"/gone/{os.getppid()}")
    assert not leave(DONE)
