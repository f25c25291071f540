"""Signals: answered wherever they come, also within an import, and by their own name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mdp.io.errors import Preempted
from mdp.io.processes.ending import ENDINGS, leave_signal
from mdp.io.processes.signals import stop_on_signals
from tests.conftest import ROOT

SWALLOWS = """
import os, signal, time
try:  # as libraries do that try whether another one can be had
    os.kill(os.getpid(), signal.{name})
    time.sleep(0.01)
except BaseException:
    pass
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_within_an_import_is_answered_after_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"swallows_{name.lower()}"
    (tmp_path / f"{module}.py").write_text(SWALLOWS.format(name=name))
    monkeypatch.syspath_prepend(str(tmp_path))

    def job() -> None:
        with stop_on_signals():
            __import__(module)
            time.sleep(600)

    with pytest.raises(Preempted, match=f"stopped by {name} before it was done; run the same command again"):
        job()


def test_a_signal_whose_exception_was_caught_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdp.io.processes.early._AGAIN", 0.05)
    caught = []

    def job() -> None:
        with stop_on_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(600)
            except BaseException as error:
                caught.append(error)
            time.sleep(600)

    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        job()
    assert len(caught) == 1


def test_signals_are_put_back_and_no_alarm_is_left() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]

    def job() -> None:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)

    with pytest.raises(Preempted):
        job()
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
def test_a_signal_while_the_command_line_is_imported_ends_it_cleanly(name: str, code: int, tmp_path: Path) -> None:
    """The first import of ours after signals are taken is click; here it is one that takes its time."""
    rest = f"import sys\nsys.path.remove({str(tmp_path)!r})\ndel sys.modules['click']\n"
    rest += "import click\nsys.modules['click'] = click\n"
    (tmp_path / "click.py").write_text(SWALLOWS.format(name=name) + rest)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-m", "mdp", "datasets"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().endswith(
        "interrupted" if code == 130 else f"stopped by {name}; run the same command again"
    )


def test_a_process_of_several_tells_the_signal_that_its_launcher_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(ENDINGS, str(tmp_path))
    leave_signal(tmp_path, signal.SIGUSR1)

    def job() -> None:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)

    with pytest.raises(Preempted, match="stopped by SIGUSR1"):
        job()
