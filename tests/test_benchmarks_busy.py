"""The benchmark beside busy neighbours: candidates by name, turns of what otherwise stands still, the table."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import busy
from benchmarks.busy import TINY, Candidate, Training, Turn, candidate, table

COUNTS = "import sys, time\nwhile True:\n    open(sys.argv[1], 'a').write('.\\n')\n    time.sleep(0.01)\n"


def test_a_candidates_name_says_its_environment_and_settings() -> None:
    assert candidate("default") == Candidate("default", {})
    assert candidate("active").environment == {"GOMP_SPINCOUNT": "300000"}
    both = candidate("spin50+avx2+workers2+threads1")
    assert both.environment == {"GOMP_SPINCOUNT": "50", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = both.command(TINY, Path("out"))
    assert {"--set=run.workers=2", "--set=run.threads=1"} < set(command)
    assert "--processes" not in command
    assert candidate("processes2").command(TINY, Path("out"))[-2:] == ["--processes", "2"]


def test_a_word_that_is_no_candidate_is_refused() -> None:
    done = CliRunner().invoke(busy.main, ["--candidates", "active,pasive"])
    assert done.exit_code == 2
    assert "'pasive'" in done.output


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    """A program that counts in place of a training."""
    (tmp_path / "counts").mkdir()
    file = str(tmp_path / "counts" / "metrics.jsonl")
    monkeypatch.setattr(Candidate, "command", lambda *_: [sys.executable, "-c", COUNTS, file])
    training = Training(Candidate("counts", {}), TINY, tmp_path)
    yield training
    if training.process.poll() is None:
        training.end()


def test_a_training_goes_on_in_its_turns_only_and_is_gone_at_the_end(counting: Training) -> None:
    counting.warm_up()
    time.sleep(0.1)  # a signal takes its time to arrive
    before = counting.steps()
    time.sleep(0.3)
    assert counting.steps() == before
    assert 0 < counting.turn(0.5, 60) <= 100
    assert counting.steps() > before
    counting.end()
    assert counting.process.returncode == -9


def test_a_training_that_ended_by_itself_says_what_it_said(counting: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = counting.out.parent
    monkeypatch.setattr(Candidate, "command", lambda *_: [sys.executable, "-c", "raise SystemExit('out of luck')"])
    training = Training(Candidate("fails", {}), TINY, folder)
    with pytest.raises(RuntimeError, match=r"fails ended with exit code 1: out of luck"):
        training.warm_up()


def test_neighbours_are_there_until_the_block_ends() -> None:
    def children() -> list[str]:
        listed = subprocess.run(
            ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
        )
        return [line for line in listed.stdout.splitlines() if "import numpy" in line]

    with busy.neighbours(2):
        assert len(children()) == 2
    assert children() == []


def test_the_table_gives_medians_and_ratios_of_the_same_round() -> None:
    names = [candidate("active"), candidate("passive")]
    found = [Turn(2, 0, 1.0), Turn(2, 1, 4.0), Turn(2, 1, 12.0), Turn(2, 0, 2.0)]
    lines = table(names, found)
    assert lines[0] == "2 neighbours"
    assert lines[1].split() == ["active", "1.50", "steps/s", "1.00", "x", "(1.00", "2.00)"]
    assert lines[2].split() == ["passive", "8.00", "steps/s", "5.00", "x", "(4.00", "12.00)"]
