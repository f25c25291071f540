"""The checkpoint format: exact, whole or refused, and readable by others."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.io import checkpoint
from mdp.io.checkpoint import load, save, write_atomically
from mdp.io.errors import CheckpointError, ResourceError

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def example() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(3, 4, generator=rng),
        "empty": torch.zeros(0, 5),
        "scalar": torch.tensor(7),
        "half": torch.randn(5, generator=rng).half(),
        "flags": torch.tensor([True, False, True]),
    }


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=6))
def test_every_tensor_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[torch.dtype, list[int]]]
) -> None:
    path = tmp_path_factory.mktemp("c") / "x.safetensors"
    tensors = {f"t{i}": (torch.randn(shape) * 9).to(dtype) for i, (dtype, shape) in enumerate(kinds)}
    save(path, tensors, {"step": 3, "name": "ü"})
    back = load(path)
    assert back.about == {"step": 3, "name": "ü"}
    assert set(back.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert back.tensors[name].dtype == tensor.dtype
        assert torch.equal(back.tensors[name], tensor)


def test_views_and_shared_storage_are_saved_as_they_look(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    save(tmp_path / "x", {"t": base.T, "row": base[1], "every": base[:, ::2]}, {})
    back = load(tmp_path / "x").tensors
    assert torch.equal(back["t"], base.T)
    assert torch.equal(back["every"], base[:, ::2])


def test_every_single_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save(path, example(), {"step": 1})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in {*range(16), *rng.integers(0, len(whole), 400).tolist()}:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            load(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x"
    save(path, example(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]", b"{}", b'{"a": 3}', b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F99", "shape": [], "data_offsets": [0, 4]}}', b"\xff\xfe", b"[" * 100000,
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}',
        b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}',
        b'{"__metadata__": {"format": "mdp", "version": "1"}}',
        b'{"__metadata__": 3}',
    ],
)  # fmt: skip
def test_hostile_headers_are_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(CheckpointError):
        load(tmp_path / "x")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found a folder"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="found none"):
        load(tmp_path / "nothing")


def test_a_newer_version_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    save(tmp_path / "x", example(), {})
    monkeypatch.setattr(checkpoint, "VERSION", 1)
    with pytest.raises(CheckpointError, match="format version 2, this mdp reads version 1"):
        load(tmp_path / "x")


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    save(path, example(), {"step": 1})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match=r"x: cannot be written \(0.0 MiB\): No space left on device"):
        save(path, example(), {"step": 2})
    assert load(path).about == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_files_are_synced_before_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda n: (order.append("sync"), sync(n))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    write_atomically(tmp_path / "x", [b"data"])
    assert order == ["sync", "rename", "sync"]


def test_the_official_library_reads_what_we_write(tmp_path: Path) -> None:
    official = pytest.importorskip("safetensors.torch")
    save(tmp_path / "x.safetensors", example(), {"step": 1})
    theirs = official.load_file(tmp_path / "x.safetensors")
    assert {name: tensor.tolist() for name, tensor in theirs.items()} == {
        name: tensor.tolist() for name, tensor in example().items()
    }


def test_a_plain_safetensors_file_is_no_checkpoint_of_mdp(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(CheckpointError, match="not a checkpoint of mdp"):
        load(tmp_path / "x")
