"""Weights files with other projects' objects in them: tensors come in exactly, objects stay names, nothing is run."""

import argparse
import datetime
import io
import pathlib
import sys
import time
import types
import zipfile
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mdp.cli import cli
from mdp.core.networks.resnet import ResNet
from mdp.io.errors import CheckpointError
from mdp.io.weights.reading import read_file, skipped_line
from tests.tensors import rng_of
from tests.test_weights import Call, LegacyPickler, Stated, legacy, pickled, tensor, zipped

FORMS = pytest.mark.parametrize("new", [True, False])


class Loud:
    """Whatever is done with it is remembered; no class of a file may be touched."""

    touched: ClassVar[list[str]] = []

    def __new__(cls, *_: Any) -> "Loud":
        cls.touched.append("made")
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.touched.append("filled")

    def __init_subclass__(cls) -> None:
        cls.touched = Loud.touched


def class_of(name: str, *bases: type) -> type:
    """A class that pickles under a dotted name of another project."""
    module, _, last = name.rpartition(".")
    return type(last, bases or (Loud,), {"__module__": module, "__qualname__": last})


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes classes of other projects, and takes their modules away again when a file is to be read."""

    def make(*names: str, bases: tuple[type, ...] = ()) -> list[type]:
        made = []
        for name in names:
            module = name.rpartition(".")[0]
            for end in range(1, module.count(".") + 2):
                part = ".".join(module.split(".")[:end])
                if part not in sys.modules:
                    monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
            made.append(class_of(name, *bases))
            setattr(sys.modules[module], name.rpartition(".")[2], made[-1])
        return made

    Loud.touched.clear()
    yield make
    assert Loud.touched == [] or Loud.touched == ["made"] * len(Loud.touched)


@FORMS
def test_what_other_projects_put_beside_their_weights_is_left_out_and_named(
    tmp_path: Path, elsewhere: Any, new: bool
) -> None:
    buffer, config, epoch = elsewhere(
        "mmengine.logging.history_buffer.HistoryBuffer", "omegaconf.dictconfig.DictConfig", "project.Epoch"
    )
    log = buffer()
    log.__dict__.update(_log_history=np.ones(5), _statistics_methods=OrderedDict(), epoch=epoch())
    weight = nn.Parameter(torch.randn(3, 2, generator=rng_of(0)))
    weight.no_weight_decay = True  # type: ignore[attr-defined]
    counted: defaultdict[str, list[int]] = defaultdict(list)
    counted["x"].append(1)
    saved = {
        "state_dict": {"w": weight, "transposed": torch.arange(6).view(2, 3).T, "half": torch.ones(2).half()},
        "message_hub": {"log": log, "runtime": OrderedDict(iter=3)}, "cfg": config(),
        "args": argparse.Namespace(out=pathlib.PurePosixPath("/x"), arch="resnet50"),
        "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "best": np.float64(0.3), "all": np.ones((2, 2)),
        "kind": np.dtype("f4"), "recent": deque([1]), "counted": counted, "span": range(3), "frozen": frozenset([1]),
        "numbers": {np.int64(3): torch.ones(1), (1, 2): 5, None: 1}, "loss": nn.functional.relu,
    }  # fmt: skip
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    Loud.touched.clear()
    found = read_file(tmp_path / "x.pth")
    assert Loud.touched == []
    assert torch.equal(found.tensors["state_dict.w"], weight)
    assert torch.equal(found.tensors["state_dict.transposed"], torch.arange(6).view(2, 3).T)
    assert found.tensors["state_dict.half"].dtype == torch.float16
    assert len(found.tensors) == 4  # and the one under NumPy's 3
    skipped = dict(found.skipped)
    for name in ("mmengine.logging.history_buffer.HistoryBuffer", "omegaconf.dictconfig.DictConfig", "project.Epoch",
                 "argparse.Namespace", "datetime.datetime", "pathlib.PurePosixPath", "collections.deque"):  # fmt: skip
        assert skipped[name] == 1, name
    assert skipped["numpy.ndarray"] == 2
    assert skipped_line(found).startswith(f"{sum(skipped.values())} objects that are no tensors were skipped, unread: ")
    assert {"args.out", "cfg", "best", "counted.x", "message_hub.runtime.iter"} < set(found.others)


@FORMS
def test_no_module_of_the_file_is_imported(tmp_path: Path, elsewhere: Any, new: bool) -> None:
    (kind,) = elsewhere("far.away.Thing")
    torch.save({"w": torch.ones(2), "thing": kind()}, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    for name in ("far", "far.away"):
        del sys.modules[name]
    asked: list[str] = []

    class Watch:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            asked.append(name)

    sys.meta_path.insert(0, Watch)  # type: ignore[arg-type]
    try:
        found = read_file(tmp_path / "x.pth")
    finally:
        sys.meta_path.remove(Watch)  # type: ignore[arg-type]
    assert asked == []
    assert "far" not in sys.modules
    assert skipped_line(found) == "1 object that is no tensor was skipped, unread: 1 far.away.Thing"


@FORMS
def test_a_module_saved_whole_gives_its_state_dict(tmp_path: Path, new: bool) -> None:
    network = nn.Sequential(ResNet("resnet18", 8), nn.ModuleDict({"head": nn.Conv2d(8, 2, 1)}))
    for value, start in ((network, ""), ({"ema": network, "epoch": 3}, "ema.")):
        torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        found = read_file(tmp_path / "x.pth")
        expected = {start + name: one for name, one in network.state_dict().items()}
        assert found.tensors.keys() == expected.keys()
        assert all(torch.equal(one, expected[name]) for name, one in found.tensors.items())


def test_dictionaries_of_other_projects_are_looked_into(tmp_path: Path, elsewhere: Any) -> None:
    (kind,) = elsewhere("easy.Box", bases=(OrderedDict,))
    torch.save(kind(model=kind(w=torch.ones(2))), tmp_path / "x.pth")
    assert list(read_file(tmp_path / "x.pth").tensors) == ["model.w"]


@FORMS
def test_tensors_that_share_their_numbers_share_them_when_read(tmp_path: Path, new: bool) -> None:
    row = torch.arange(10.0)
    torch.save({"a": row, "b": row[4:8].view(2, 2), "c": row.view(2, 5).T, "none": row[:0]}, tmp_path / "x.pth",
               _use_new_zipfile_serialization=new)  # fmt: skip
    found = read_file(tmp_path / "x.pth").tensors
    assert found["b"].tolist() == [[4, 5], [6, 7]]
    assert torch.equal(found["c"], row.view(2, 5).T)
    assert found["none"].shape == (0,)
    found["a"].zero_()
    assert found["b"].tolist() == [[0, 0], [0, 0]]


def test_numbers_of_the_other_byte_order_are_turned_round(tmp_path: Path) -> None:
    numbers = np.array([1.5, -2.0, 3.25, 0.0], ">f4").tobytes()
    data = zipped(pickled({"a": tensor(4, (2, 2), (2, 1))}), numbers)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(tmp_path / "x.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    assert read_file(tmp_path / "x.pth").tensors["a"].tolist() == [[1.5, -2.0], [3.25, 0.0]]


def test_views_of_files_before_torch_0_4_are_the_part_they_name(tmp_path: Path) -> None:
    class Views(LegacyPickler):
        def persistent_id(self, found: Any) -> Any:
            whole = super().persistent_id(found)
            return (*whole[:5], ("1", 1, 2)) if whole else None

    value = {"a": Call(torch._utils._rebuild_tensor_v2, Stated(4), 0, (2,), (1,), False, OrderedDict())}
    good = legacy({}, np.array([1, 2, 3, 4], "f4").tobytes())
    (tmp_path / "x.pth").write_bytes(good.replace(pickled({}, LegacyPickler), pickled(value, Views)))
    assert read_file(tmp_path / "x.pth").tensors["a"].tolist() == [2, 3]


NESTED = st.recursive(
    st.sampled_from(["tensor", "text", "number", "object"]),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c", "d e"]), inner, max_size=3),
    max_leaves=12,
)


@given(NESTED, st.booleans())
def test_every_tensor_of_a_nested_file_comes_in_and_nothing_else_is_one(shape: Any, new: bool) -> None:
    expected: dict[str, Any] = {}

    def make(part: Any, path: str) -> Any:
        if isinstance(part, dict):
            return {name: make(one, f"{path}.{name}") for name, one in part.items()}
        if part == "tensor":
            expected[path] = torch.full((2,), float(len(expected)))
            return expected[path]
        return {"text": "x", "number": 3, "object": argparse.Namespace(a=np.float32(1))}[part]

    path = Path(f"nested_{int(new)}.pth")
    torch.save({"w": torch.ones(1), "top": make(shape, "top")}, path, _use_new_zipfile_serialization=new)
    try:
        found = read_file(path).tensors
    finally:
        path.unlink()
    assert found.keys() == {"w", *expected}
    assert all(torch.equal(found[name], one) for name, one in expected.items())


# Made to harm


def chain(*names: str) -> Any:
    """`getattr(getattr(numpy.f2py, "os"), "system")`, and the like: a way to a function past every list of names."""
    found: Any = np.f2py.crackfortran.crackline  # type: ignore[attr-defined]  # a function, pickled by its name
    for name in names:
        found = Call(getattr, found, name)
    return found


def applied(function: Any, *arguments: Any) -> bytes:
    """The opcodes of {"w": tensor, "x": function(*arguments)}, where the function is a call itself."""
    start = pickled({"w": tensor(4, (4,), (1,))})[:-1]
    return start + b"X\x01\x00\x00\x00x" + pickled(function)[2:-1] + pickled(arguments)[2:-1] + b"Rs."


@pytest.mark.parametrize("names", [("os", "system"), ("__globals__", "x"), ("os", "path", "os", "popen")])
def test_a_function_reached_by_way_of_others_is_a_name_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    import numpy.f2py.crackfortran  # noqa: F401, PLC0415

    monkeypatch.chdir(tmp_path)
    Path("x.pth").write_bytes(zipped(applied(chain(*names), "touch SENTINEL")))
    found = read_file(Path("x.pth"))
    assert found.tensors["w"].shape == (4,)
    assert dict(found.skipped) == {f"numpy.f2py.crackfortran.crackline.{'.'.join(names)}": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize("line", [
    "cos\nsystem\n", "cposix\nsystem\n", "cnt\nsystem\n", "csubprocess\nPopen\n", "c__builtin__\neval\n",
    "cbuiltins\nexec\n", "cbuiltins\n__import__\n", "cimportlib\nimport_module\n", "crunpy\nrun_path\n", "csys\nexit\n",
    "cos.path\nos.system\n", "ctorch\nload\n", "ctorch.hub\nload\n", "ctorch.serialization\nload\n", "cctypes\nCDLL\n",
    "cshutil\nrmtree\n", "csocket\ncreate_connection\n", "cbuiltins\nbytearray\n", "ctorch\nFloatTensor\n",
])  # fmt: skip
def test_a_file_that_asks_for_a_function_that_reaches_outside_is_refused_by_its_name(tmp_path: Path, line: str) -> None:
    data = (
        pickled({"w": tensor(4, (4,), (1,))})[:-1] + b"X\x01\x00\x00\x00x" + line.encode() + b"(X\x01\x00\x00\x00ytRs."
    )
    (tmp_path / "x.pth").write_bytes(zipped(data))
    name = line[1:-1].replace("\n", ".")
    with pytest.raises(CheckpointError, match=f"it asks for {name}, which is not part of plain weights"):
        read_file(tmp_path / "x.pth")


@pytest.mark.parametrize("data", [
    b"\x80\x02(ifar\nThing\n.", b"\x80\x02(cfar\nThing\no.", b"\x80\x02\x82\x01.", b"\x80\x02\x83\x01\x00.",
    b"\x80\x02Pname\n.", b"\x80\x02X\x01\x00\x00\x00xQ.", b"\x80\x02cfar\nThing\n}Q.", b"\x80\x02K\x01)\x81.",
])  # fmt: skip
def test_other_ways_to_make_an_object_or_name_a_storage_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(zipped(data))
    with pytest.raises(CheckpointError, match="cannot be read as plain weights"):
        read_file(tmp_path / "x.pth")


def test_a_class_of_the_file_that_is_at_hand_is_not_touched(tmp_path: Path, elsewhere: Any) -> None:
    (kind,) = elsewhere("near.Thing")
    thing = kind()
    thing.weights = torch.ones(2)
    torch.save({"thing": thing}, tmp_path / "x.pth")
    Loud.touched.clear()
    assert list(read_file(tmp_path / "x.pth").tensors) == ["thing.weights"]
    assert Loud.touched == []


# Too large


def test_long_logs_in_numpy_arrays_are_no_obstacle(tmp_path: Path) -> None:
    numbers = np.frombuffer(torch.randint(256, (6 * 2**20,), generator=rng_of(0), dtype=torch.uint8).numpy(), np.uint8)
    torch.save({"w": torch.ones(2), "log": numbers}, tmp_path / "x.pth")
    assert list(read_file(tmp_path / "x.pth").tensors) == ["w"]


def multiplied() -> dict[str, Any]:
    """Objects that hold the one below a hundred times, and much that is no tensor: 10^12 names from few bytes."""
    table: Any = argparse.Namespace(**{f"text{number}": "x" for number in range(1000)}, w=torch.ones(1))
    for _ in range(6):
        table = argparse.Namespace(**{f"a{number}": table for number in range(100)})
    return {"x": table}


def circle() -> dict[str, Any]:
    found = argparse.Namespace(w=torch.ones(1))
    found.again = found
    return {"x": found}


@pytest.mark.parametrize(("make", "name"), [(multiplied, "x.a0.a0.a0.a0.a0.a0.w"), (circle, "x.w")])
def test_objects_that_hold_each_other_are_looked_into_once(tmp_path: Path, make: Any, name: str) -> None:
    torch.save(make(), tmp_path / "x.pth")
    assert list(read_file(tmp_path / "x.pth").tensors) == [name]


MANY_PARTS = b"\x80\x02" + b"}" * (2**22 + 100_000) + b"."
COLLIDING = b"".join(b"\x8a\x0b" + (n * (2**61 - 1)).to_bytes(11, "little") + b"N" for n in range(20_000))
LONG = b"X\xc8\x00\x00\x00" + b"a" * 200
AGAIN = b"q\x010cbuiltins\ngetattr\nh\x01h\x02\x86R"  # keep it, drop it, getattr(it, name)


ROWS = [b"(X\x04\x00\x00\x00%04dN" % number for number in range(9999)]
PAIRS = b"](" + b"".join(row + b"t" for row in ROWS) + b"e"
COPY = b"ccollections\nOrderedDict\nh\x01\x85Ra"  # a table of what is kept under 1, appended to a list
BOMBS: dict[str, tuple[bytes, str]] = {
    "many parts": (zipped(MANY_PARTS), "more than 4194304 bytes and 1000000 parts"),
    "numbers that collide": (zipped(b"\x80\x02}(" + COLLIDING + b"u."), "no tensors in it"),
    "a name that grows": (
        zipped(b"\x80\x02}X\x01\x00\x00\x00k" + LONG + b"q\x020cfar\nThing\n" + 9000 * AGAIN + b"s."),
        "no tensors in it",
    ),
    "a table that is copied": (
        zipped(b"\x80\x02" + PAIRS + b"q\x010]" + 100_000 * COPY + b"."),
        "expected a state_dict, found list",
    ),
    "attributes that many share": (
        zipped(
            b"\x80\x02}(" + b"".join(row[1:] for row in ROWS) + b"uq\x010}("
            + b"".join(row[1:-1] + b"cfar\nThing\n)Rh\x01b" for row in ROWS) + b"u."
        ),
        "nested too deeply, or too large",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_within_seconds(tmp_path: Path, name: str) -> None:
    content, reason = BOMBS[name]
    (tmp_path / "x.pth").write_bytes(content)
    begun = time.process_time()
    with pytest.raises(CheckpointError, match=reason) as error:
        read_file(tmp_path / "x.pth")
    assert time.process_time() - begun < 20
    assert len(str(error.value)) < 1000


def test_inspect_and_init_say_what_was_left_out(tmp_path: Path) -> None:
    own = ResNet("resnet18", 8).state_dict()
    torch.save({"state_dict": own, "args": argparse.Namespace(lr=np.float64(1))}, tmp_path / "x.pth")
    done = CliRunner().invoke(cli, ["inspect", str(tmp_path / "x.pth")])
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if line.startswith("skipped"))
    assert line.startswith("skipped  3 objects that are no tensors were skipped, unread: ")
    assert "1 argparse.Namespace" in line
