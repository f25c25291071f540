"""Weights files of others: plain tensors come in exactly, everything else is refused before torch opens it."""

import io
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mdp.io.errors import CheckpointError
from mdp.io.run.checkpoint import save
from mdp.io.run.record import Position, RunRecord
from mdp.io.weights import reading as weights_reading
from mdp.io.weights.reading import read_weights

MAGIC = 0x1950A86A20F9469CFC6C


class Call:
    """Pickled, it is a call of the function; unpickled carelessly, that call is made."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Stated(NamedTuple):
    """A storage as a pickle states it, true or not."""

    numbers: int
    key: str = "0"
    kind: Any = torch.FloatStorage


class Pickler(pickle.Pickler):
    def persistent_id(self, found: Any) -> Any:
        return ("storage", found.kind, found.key, "cpu", found.numbers) if isinstance(found, Stated) else None


class LegacyPickler(pickle.Pickler):
    def persistent_id(self, found: Any) -> Any:
        return ("storage", found.kind, found.key, "cpu", found.numbers, None) if isinstance(found, Stated) else None


def tensor(numbers: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, key: str = "0") -> Call:
    return Call(torch._utils._rebuild_tensor_v2, Stated(numbers, key), offset, shape, stride, False, OrderedDict())


def pickled(value: Any, kind: type[pickle.Pickler] = Pickler) -> bytes:
    stream = io.BytesIO()
    kind(stream, protocol=2).dump(value)
    return stream.getvalue()


def zipped(data: bytes, storage: bytes = bytes(16), how: int = zipfile.ZIP_STORED, start: bytes = b"") -> bytes:
    """A file in the form that torch.save writes."""
    stream = io.BytesIO(start)
    stream.seek(len(start))
    with zipfile.ZipFile(stream, "w", how) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", storage)
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def legacy(value: Any, storage: bytes = bytes(16)) -> bytes:
    """A file in the form that torch.save wrote before version 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    heads = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, system))
    return heads + pickled(value, LegacyPickler) + pickle.dumps(["0"], 2) + (4).to_bytes(8, "little") + storage


def twice(data: bytes) -> bytes:
    stream = io.BytesIO(zipped(data))
    with zipfile.ZipFile(stream, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data/0", bytes(16))
    return stream.getvalue()


GOOD = {"a": tensor(4, (2, 2), (2, 1))}
CODE = {
    "system": Call(os.system, "touch SENTINEL"),
    "eval": Call(eval, "open('SENTINEL', 'w')"),
    "hub": Call(torch.hub.load, "owner/repository", "model"),
    "getattr": Call(getattr, Call(__import__, "os"), "system"),
    "load": Call(torch.load, "other.pth"),
}
SIZES = {
    "bytearray": Call(bytearray, 4_000_000_000),
    "float tensor": Call(torch.FloatTensor, 1_000_000_000),
    "stride 0": tensor(4, (2**40,), (0,)),
    "beyond the storage": tensor(4, (2, 2), (8, 1)),
    "offset beyond the storage": tensor(4, (2, 2), (2, 1), offset=1),
    "offset below the storage": tensor(4, (2, 2), (2, 1), offset=-1),
    "large storage": tensor(10**9, (2,), (1,)),
    "size of nothing": tensor(4, (2**47, 2**47, 2**47, 0, 3), (1,) * 4),
}
DEEP = b"\x80\x02})" + b"\x85" * 300_000  # a tuple in a tuple in ... as a key
OPCODES = {
    "a deep key": DEEP + b"K\x01s.",
    "unknown opcode": b"\x80\x02\x92.",
    "bytes of 2**60": b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".",
    "empty stack": b"\x80\x02.",
    "no end": b"\x80\x02}",
    "call of a number": b"\x80\x02K\x01)R.",
    "instance": b"\x80\x02(ios\nsystem\n.",
    "nothing": b"",
}
HOSTILE: dict[str, bytes] = {
    **{f"{name}, zip": zipped(pickled({"a": value})) for name, value in {**CODE, **SIZES}.items()},
    **{f"{name}, legacy": legacy({"a": value}) for name, value in {**CODE, **SIZES}.items()},
    **{f"{name}, raw": pickle.dumps({"a": value}, 2) for name, value in CODE.items()},
    **{f"{name}, opcodes": zipped(data) for name, data in OPCODES.items()},
    "deflated": zipped(pickled({"a": tensor(2**24, (2**24,), (1,))}), bytes(2**26), zipfile.ZIP_DEFLATED),
    "large pickle": zipped(b"\x80\x02" + b"}" * 2**22 + b"."),
    "name twice": twice(pickled(GOOD)),
    "something before": zipped(pickled(GOOD), start=b"PK\x03\x04 and more"),
    "two stated storages": legacy({"a": tensor(90, (1,), (1,)), "b": tensor(90, (1,), (1,), key="1")}, bytes(16)),
    "no storage": zipped(pickled({"a": tensor(4, (4,), (1,), key="7")})),
    "page": b"<html>not found</html>",
    "nothing": b"",
    "zip's first bytes": b"PK\x03\x04",
    "another zip": zipped(pickled(GOOD)).replace(b"data.pkl", b"date.pkl"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_before_torch_opens_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: calls.append(name))
    Path("x.pth").write_bytes(HOSTILE[name])
    with pytest.raises(
        CheckpointError, match=r"^x\.pth: cannot be read as plain weights \(.+\); files that run"
    ) as error:
        read_weights(Path("x.pth"))
    assert "\n" not in str(error.value)
    assert calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]  # no SENTINEL


@pytest.mark.parametrize(("name", "reason"), [
    ("system, zip", "it asks for posix.system, which is not part"),
    ("eval, legacy", "it asks for __builtin__.eval, which"),
    ("bytearray, zip", "bytearray"),
    ("stride 0, legacy", r"a tensor of shape \[1099511627776\] does not fit its storage of 4 numbers"),
    ("large storage, zip", "storage 0 states 4000000000 bytes and has 16"),
    ("large storage, legacy", "storages of 4000000000 bytes in a file of"),
    ("two stated storages", "storages of 720 bytes in a file of"),
    ("deflated", "that unpack to"),
    ("a deep key, opcodes", "keys are no names"),
    ("page", "invalid|unknown|opcode"),
])  # fmt: skip
def test_the_reason_is_given(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "x.pth").write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError, match=reason):
        read_weights(tmp_path / "x.pth")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the highest use of memory is read from /proc")
def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    """In a process of its own, whose highest use of memory is the reading's; it may not ask for much more either."""
    for number, data in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.pth").write_bytes(data)
    code = (
        "import re, resource, sys\nfrom pathlib import Path\n"
        "from mdp.io.errors import CheckpointError\nfrom mdp.io.weights.reading import read_weights\n"
        "def kib(word): return int(re.search(word + r':\\s+([0-9]+) kB', Path('/proc/self/status').read_text())[1])\n"
        "before = kib('VmHWM')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1024 * kib('VmSize') + 2**29, -1))\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try:\n        read_weights(path)\n    except CheckpointError:\n        continue\n    sys.exit(str(path))\n"
        "print((kib('VmHWM') - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 64


def plain() -> dict[str, Any]:
    """Everything that the checkpoints of other projects hold and weights_only takes."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2).to(torch.bfloat16))
    optimizer = torch.optim.Adam(network[0].parameters())
    network[0](torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    return {
        "state_dict": {
            **network.state_dict(), "parameter": nn.Parameter(torch.ones(2)), "view": torch.arange(9.0)[2:5],
        },
        "transposed": torch.arange(6).view(2, 3).T,
        "empty": torch.zeros(0, 3),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "meta": {
            "CLASSES": ("road", "sky"), "lr": 1e-3, "bytes": b"x", "set": {1, 2}, "size": torch.Size([1, 2]),
            "no": None, "device": torch.device("cpu"), "dtype": torch.float32, "large": 2**70, "below": -5,
            "long": list(range(300)),
            "ordered": OrderedDict(a=1), "counter": Counter("aab"), 3: True, "shared": [1.5] * 2,
        },
    }  # fmt: skip


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin"])
def test_plain_files_of_both_forms_come_in_exactly(tmp_path: Path, new: bool, name: str) -> None:
    torch.save(plain(), tmp_path / name, _use_new_zipfile_serialization=new)
    expected: dict[str, Tensor] = torch.load(tmp_path / name, weights_only=True)["state_dict"]
    found, record = read_weights(tmp_path / name)
    assert record is None
    inside = {key.removeprefix("state_dict."): value for key, value in found.items() if key.startswith("state_dict.")}
    assert list(inside) == list(expected)
    assert all(torch.equal(inside[key], value) and inside[key].dtype == value.dtype for key, value in expected.items())
    beside = {"transposed", "empty", *(f"optimizer.state.{n}.{key}" for n in (0, 1) for key in ("step", "exp_avg"))}
    assert beside < set(found)


def test_the_hand_made_files_are_good_when_nothing_is_wrong_with_them(tmp_path: Path) -> None:
    for data in (zipped(pickled(GOOD)), zipped(pickled(GOOD), how=zipfile.ZIP_DEFLATED), legacy(GOOD)):
        (tmp_path / "x.pth").write_bytes(data)
        assert read_weights(tmp_path / "x.pth")[0]["a"].tolist() == [[0, 0], [0, 0]]


def test_damaged_files_give_weights_or_one_line(tmp_path: Path) -> None:
    """torch's own forms have no checksums that it looks at, but no flip may show a traceback."""
    rng = torch.Generator().manual_seed(0)
    for new in (True, False):
        torch.save({"a": torch.ones(3), "b": torch.ones(2)}, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        whole = (tmp_path / "x.pth").read_bytes()
        for place in torch.randint(8 * len(whole), (300,), generator=rng).tolist():
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            (tmp_path / "x.pth").write_bytes(damaged if place % 3 else whole[: place // 8])
            try:
                read_weights(tmp_path / "x.pth")
            except CheckpointError as error:
                assert "\n" not in str(error)  # noqa: PT017


def test_files_above_the_limit_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "x.pth").open("wb") as file:
        file.truncate(2**40)  # takes no room
    with pytest.raises(CheckpointError, match="1099511627776 bytes; weights files of up to"):
        read_weights(tmp_path / "x.pth")
    monkeypatch.setattr(weights_reading, "_LIMIT", 10)
    torch.save({"a": torch.ones(3)}, tmp_path / "y.pth")
    with pytest.raises(CheckpointError, match="of up to 10 are read"):
        read_weights(tmp_path / "y.pth")


@pytest.mark.parametrize(("value", "reason"), [([1, 2], "expected a state_dict, found list"), ({"a": 1}, "no tensors")])
def test_files_without_tensors_say_so(tmp_path: Path, value: Any, reason: str) -> None:
    torch.save(value, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=reason):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize(("kind", "part"), [("pretrain", "query"), ("finetune", "network")])
def test_a_run_gives_the_network_that_its_kind_trains(tmp_path: Path, kind: str, part: str) -> None:
    tensors = {"query.a": torch.ones(1), "key.a": torch.zeros(1), "network.a": torch.full((1,), 2.0)}
    save(tmp_path / "x.safetensors", tensors, {"kind": kind, "step": 3, "recipe": {"run": {"seed": 1}}, "labels": []})
    found, record = read_weights(tmp_path / "x.safetensors")
    assert found == {"a": tensors[f"{part}.a"]}
    assert record == RunRecord(kind=kind, position=Position(3), recipe={"run": {"seed": 1}}, labels=())


def test_a_checkpoint_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "x.safetensors", {}, {})
    with pytest.raises(CheckpointError, match="its kind is None; expected a pretrain or finetune run"):
        read_weights(tmp_path / "x.safetensors")
