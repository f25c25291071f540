"""`make gpu` itself: it runs, without a GPU too, and neither an error nor a part without end stays unseen."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from tests import preloaded
from tests.gpu import first_contact
from tests.gpu.findings import Finding, Findings, read
from tests.gpu.first_contact import Outcome, main, run_within
from tests.gpu.parts import SECONDS
from tests.gpu.parts._small import ONE_EACH
from tests.gpu.table import table


def test_on_a_cpu_the_parts_that_decide_what_is_right_pass(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts are forks here; how an interpreter is ended in time is told below."""

    def run_fork(words: list[str], environment: dict[str, str], seconds: float) -> str:
        done = preloaded.run(words[1:], tmp_path, **environment)
        return f"exit code {done.code}: {done.err}" if done.code else "done"

    monkeypatch.setattr(first_contact, "run_within", run_fork)
    assert main(["--device", "cpu", "--quick", "--parts", "core,methods", "--out", str(tmp_path)]) == 0
    assert capfd.readouterr().out.endswith("\n0 failures\n")
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert [part["ended"] for part in results["parts"]] == ["done", "done"]
    assert results["environment"]["torch"] == torch.__version__
    core, methods = ([finding["passed"] for finding in part["findings"]] for part in results["parts"])
    assert core.count(True) > 4 * 2 * 3 * 2  # value and gradient of each form, layout and precision, and others
    assert methods.count(True) == 6 * len(ONE_EACH)  # three losses, weights, state, reduced precision
    assert "| methods | done |" in (tmp_path / "gpu.md").read_text()


def test_a_part_without_end_is_ended_and_fails() -> None:
    ended = run_within([sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), 0.2)
    assert ended.startswith("out of time")
    assert Outcome("core", ended, 0.2, []).failures()


def test_parts_that_no_time_is_left_for_are_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--limit", "1", "--parts", "core,bits", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("0 failures, left out: core, bits\n")


def test_without_a_gpu_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.startswith("--device cuda: torch finds no CUDA device; ")
    assert not (tmp_path / "out").exists()


def test_a_part_that_dies_fails_whatever_it_had_found() -> None:
    passed = Finding("core", "x", True, 0.1, {})
    assert Outcome("core", "exit code -11", 1.0, [passed]).failures() == ["core: exit code -11"]
    assert Outcome("core", "done", 1.0, [passed]).failures() == []


def test_an_error_inside_is_a_failed_check_and_what_follows_still_runs(tmp_path: Path) -> None:
    findings = Findings("core", tmp_path / "findings.jsonl")
    with findings.going_on("first"):
        raise RuntimeError("CUDA error")
    findings.near("second", torch.tensor([float("nan")]), torch.tensor([1.0]), 1e-3)
    findings.near("third", torch.tensor([1.0005]), torch.tensor([1.0]), 1e-3)
    written = read(tmp_path / "findings.jsonl")
    assert [finding.passed for finding in written] == [False, False, True]
    assert written[0].figures == {"error": "RuntimeError: CUDA error"}


def test_the_table_shows_figures_and_failures() -> None:
    findings = [
        Finding("speed", "bf16", None, 1.0, {"ms": 160.5, "images_per_second": 398.0, "busy": 0.95}),
        Finding("speed", "fp16", False, 2.0, {"error": "out of\nmemory"}),
    ]
    page = table({"device": "one"}, [("speed", "done", 3.0, findings)])
    assert "| speed | bf16 | 160.5 | 398 | 0.95 |" in page
    assert "- speed: fp16: error out of memory" in page


def test_every_part_has_a_file() -> None:
    files = {path.stem for path in (Path(first_contact.__file__).parent / "parts").glob("[!_]*.py")}
    assert files == set(SECONDS)
