"""How OpenMP threads wait: what is set, where it arrives, and that the user's own word stands."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mdp.io.processes import launcher, openmp

ROOT = Path(__file__).parents[1]
WORKER = """
import os, sys
from mdp import cli

assert "torch" not in sys.modules, "torch has read the environment before main() could set it"

NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")

class Items:
    def __getitem__(self, key):
        import torch
        return [os.environ.get(name) for name in NAMES] + [torch.get_num_threads()]

@cli.cli.command()
def waits():
    from mdp.io.data.loader import load
    print(*next(load(Items(), iter([[(0, 0)]]), workers=1))[0])

cli.main()
"""


def test_threads_sleep_soon_where_the_environment_says_nothing() -> None:
    environment = {"PATH": "/bin", "OMP_NUM_THREADS": "3"}
    openmp.sleep_soon(environment)
    assert environment == {"PATH": "/bin", "OMP_NUM_THREADS": "3", **openmp.DEFAULT}
    assert int(openmp.DEFAULT["GOMP_SPINCOUNT"]) < 300_000  # what libgomp does by itself


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"])
def test_whoever_has_set_how_threads_wait_has_the_only_word(name: str) -> None:
    for value in ("ACTIVE", ""):
        environment = {name: value}
        openmp.sleep_soon(environment)
        assert environment == {name: value}


def command(**others: str) -> subprocess.CompletedProcess[str]:
    """`mdp waits`, a command that imports torch and prints what a loader's worker has; OpenMP says what it has read."""
    silent = {name: value for name, value in os.environ.items() if name not in openmp.SAYS_HOW}
    return subprocess.run(
        [sys.executable, "-c", WORKER, "waits"], capture_output=True, text=True, check=False,
        env={**silent, "PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "VERBOSE", **others},
    )  # fmt: skip


libgomp = pytest.mark.skipif(
    not list(Path(torch.__file__).parent.glob("lib/libgomp*")), reason="torch comes with another OpenMP"
)


@libgomp
def test_openmp_reads_it_in_the_command_and_its_workers_inherit_it_with_one_thread() -> None:
    done = command()
    assert done.returncode == 0, done.stderr
    assert f"GOMP_SPINCOUNT = '{openmp.DEFAULT['GOMP_SPINCOUNT']}'" in done.stderr
    assert done.stdout.split() == [*openmp.DEFAULT.values(), "None", "1"]


@libgomp
def test_openmp_reads_the_users_own_word_in_the_command_and_its_workers() -> None:
    done = command(OMP_WAIT_POLICY="ACTIVE")
    assert done.returncode == 0, done.stderr
    assert "GOMP_SPINCOUNT = '30000000000'" in done.stderr
    assert done.stdout.split() == ["None", "None", "ACTIVE", "1"]


def test_importing_the_library_changes_no_environment() -> None:
    code = "import os\nbefore = dict(os.environ)\nimport mdp.core, mdp.cli\nassert dict(os.environ) == before"
    silent = {name: value for name, value in os.environ.items() if name not in openmp.SAYS_HOW}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=silent)
    assert done.returncode == 0, done.stderr


def test_the_launchers_processes_inherit_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_text(
        f'#!/bin/sh\necho "$GOMP_SPINCOUNT $KMP_BLOCKTIME" > {tmp_path}/said.$RANK\necho 0 > "$MDP_ENDINGS/$RANK"\n'
    )
    program.chmod(0o755)
    for name in openmp.SAYS_HOW:
        monkeypatch.delenv(name, raising=False)
    for name, value in openmp.DEFAULT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MDP_ENDINGS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "executable", str(program))
    before = signal.getsignal(signal.SIGUSR1)
    try:
        assert launcher.launch(2, []) == 0
    finally:
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGUSR1, before)
    said = [(tmp_path / f"said.{rank}").read_text() for rank in range(2)]
    assert said == [" ".join(openmp.DEFAULT.values()) + "\n"] * 2
