"""`mdp checkpoint verify, show and diff`: what they print, and their exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mdp import cli
from mdp.io.run.checkpoint import save
from mdp.io.run.header import config_hash

LABELS = [{"name": "site", "classes": ["road", "sky"]}, {"name": "town", "classes": ["tree"]}]


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Shell:
    """Runs command lines in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: object) -> Done:
        self.monkeypatch.setattr(sys, "argv", ["mdp", "checkpoint", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, captured.out, captured.err)


@pytest.fixture
def mdp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def tensors() -> dict[str, Tensor]:
    return {"query.a": torch.arange(6.0).view(2, 3), "key.a": torch.zeros(2, 3), "state.n": torch.tensor([1, 2, 3])}


def about(step: int, **run: Any) -> dict[str, Any]:
    return {"kind": "pretrain", "step": step, "best": 0.5, "recipe": {"run": {"seed": 1, **run}}, "labels": LABELS}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name, step in {"last": 9, "previous": 8, "best": 7, "step_00000005": 5}.items():
        save(folder / "checkpoints" / f"{name}.safetensors", tensors(), about(step))
    return folder


def spoil(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)


def test_verify_says_for_each_checkpoint_that_it_is_whole(mdp: Shell, run: Path) -> None:
    done = mdp("verify", run)
    home = run / "checkpoints"
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"{home / 'last.safetensors'}: OK (step 9)",
        f"{home / 'previous.safetensors'}: OK (step 8)",
        f"{home / 'best.safetensors'}: OK (step 7)",
        f"{home / 'step_00000005.safetensors'}: OK (step 5)",
    ]
    assert mdp("verify", home / "best.safetensors").out == done.out.splitlines(keepends=True)[2]


def test_verify_names_what_is_damaged_and_ends_with_5(mdp: Shell, run: Path) -> None:
    spoil(run / "checkpoints" / "previous.safetensors")
    (run / "checkpoints" / "best.safetensors").write_bytes(b"half")
    done = mdp("verify", run)
    assert done.code == 5
    lines = done.out.splitlines()
    assert lines[0].endswith("last.safetensors: OK (step 9)")
    assert lines[1].endswith("previous.safetensors: DAMAGED: tensor query.a does not match its checksum")
    assert lines[2].endswith("best.safetensors: DAMAGED: 4 bytes, cut short or of another kind")
    assert done.err == "error: 2 of 4 checkpoints damaged\n"
    found = json.loads(mdp("verify", run, "--json").out)
    assert [(row["step"], bool(row["problem"])) for row in found] == [
        (9, False),
        (None, True),
        (None, True),
        (5, False),
    ]


@pytest.mark.parametrize("command", ["verify", "show"])
def test_what_is_not_there_is_named(mdp: Shell, tmp_path: Path, command: str) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        done = mdp(command, path)
        assert (done.code, done.out) == (5, "")
        assert done.err.startswith(f"error: {path}: ")
        assert done.err.count("\n") == 1


def test_show_counts_tensors_numbers_and_bytes_by_section(mdp: Shell, run: Path) -> None:
    found = json.loads(mdp("show", run, "--json").out)
    path = run / "checkpoints" / "last.safetensors"
    assert found == {
        "path": str(path), "kind": "pretrain", "step": 9, "best": 0.5, "format_version": 2,
        "config_sha256": config_hash(about(9)), "datasets": {"site": 2, "town": 1},
        "file_bytes": path.stat().st_size, "tensors": 3, "numbers": 15,
        "sections": {
            "key": {"tensors": 1, "numbers": 6, "bytes": 24},
            "query": {"tensors": 1, "numbers": 6, "bytes": 24},
            "state": {"tensors": 1, "numbers": 3, "bytes": 24},
        },
    }  # fmt: skip
    text = mdp("show", path).out
    for word in ("pretrain", "site (2 classes), town (1 classes)", config_hash(about(9)), "15 numbers"):
        assert word in text


def test_show_reads_a_file_of_version_1(mdp: Shell) -> None:
    done = mdp("show", Path(__file__).parent / "fixtures" / "version_1.safetensors")
    assert done.code == 0
    assert "format version 1" in done.out
    assert "site-a (2 classes)" in done.out


def test_show_refuses_label_spaces_that_are_none(mdp: Shell, tmp_path: Path) -> None:
    save(tmp_path / "x", {}, {"labels": [3]})
    done = mdp("show", tmp_path / "x")
    assert (done.code, done.err) == (5, f"error: {tmp_path / 'x'}: its label spaces are not as mdp writes them: [3]\n")


def test_equal_tensors_are_equal_whatever_else_differs(mdp: Shell, run: Path, tmp_path: Path) -> None:
    assert mdp("diff", run, run) == Done(0, "equal: all 3 tensors bit for bit\n", "")
    save(tmp_path / "x", tensors(), about(9, workers=4))
    done = mdp("diff", run, tmp_path / "x")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["setting run.workers: None -> 4", "equal: all 3 tensors bit for bit"]


def test_diff_says_what_differs_and_ends_with_5(mdp: Shell, run: Path, tmp_path: Path) -> None:
    other = {"query.a": tensors()["query.a"].clone(), "key.a": torch.zeros(3, 2), "state.m": torch.zeros(1)}
    other["query.a"][0, 1] += 0.5
    other["query.a"][0, 0] = -0.0  # the same number, other bits
    description = {**about(10, seed=2), "labels": [{"name": "site", "classes": ["road", "car"]}]}
    save(tmp_path / "x", other, description)
    done = mdp("diff", run, tmp_path / "x")
    assert done.code == 5
    assert done.out.splitlines() == [
        "setting run.seed: 1 -> 2",
        "classes of site: 2 -> 2; without sky; new car",
        "classes of town: only in the first",
        "step: 9 -> 10",
        "only in the first: state.n",
        "only in the second: state.m",
        "tensor key.a: float32 [2, 3] -> float32 [3, 2]",
        "tensor query.a: differs by up to 0.5; 4 of 6 numbers bit-equal",
        "different: 2 tensors differ, 0 are bit-equal, 2 in one only",
    ]
    assert done.err.startswith(f"error: {run / 'checkpoints' / 'last.safetensors'} and {tmp_path / 'x'} are different")
    found = json.loads(mdp("diff", run, tmp_path / "x", "--json").out)
    assert found["equal"] is False
    assert found["tensors"]["query.a"] == {"numbers": 6, "equal": 4, "max_difference": 0.5}


def test_a_tensor_more_is_a_difference(mdp: Shell, run: Path, tmp_path: Path) -> None:
    save(tmp_path / "x", {**tensors(), "state.more": torch.zeros(1)}, about(9))
    done = mdp("diff", run, tmp_path / "x")
    assert done.code == 5
    assert done.out.splitlines()[-1] == "different: 0 tensors differ, 3 are bit-equal, 1 in one only"


def test_numbers_that_are_none_differ_without_becoming_one(mdp: Shell, run: Path, tmp_path: Path) -> None:
    other = tensors()
    other["query.a"][0, 0] = float("nan")
    save(tmp_path / "x", other, about(9))
    save(tmp_path / "y", other, about(9))
    assert "differs by up to no finite number; 5 of 6" in mdp("diff", run, tmp_path / "x").out
    assert json.loads(mdp("diff", run, tmp_path / "x", "--json").out)["tensors"]["query.a"]["max_difference"] is None
    assert mdp("diff", tmp_path / "x", tmp_path / "y").code == 0  # a NaN is equal to itself bit for bit


def test_a_damaged_side_is_an_error_not_a_difference(mdp: Shell, run: Path) -> None:
    spoil(run / "checkpoints" / "best.safetensors")
    done = mdp("diff", run, run / "checkpoints" / "best.safetensors")
    assert (done.code, done.out) == (5, "")
    assert "does not match its checksum" in done.err


def test_long_lists_are_cut_and_say_so(mdp: Shell, tmp_path: Path) -> None:
    for name, value in (("x", 0.0), ("y", 1.0)):
        save(tmp_path / name, {f"t{i}": torch.tensor([value]) for i in range(30)}, {})
    lines = mdp("diff", tmp_path / "x", tmp_path / "y").out.splitlines()
    assert len(lines) == 12
    assert lines[-2] == "tensor ... and 20 more"


def test_a_typo_is_told_the_nearest_command(mdp: Shell) -> None:
    done = mdp("verfy")
    assert done.code == 2
    assert "did you mean 'verify'?" in done.err


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom mdp.cli import cli\n"
        "for name in ('verify', 'show', 'diff'):\n    cli.main(['checkpoint', name, '--help'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
