"""The checkpoint format: exact, whole or refused, and readable by others."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.io.errors import CheckpointError, ResourceError
from mdp.io.run import checkpoint
from mdp.io.run.checkpoint import load, read_tensors, save
from mdp.io.run.checkpoints import newest_whole, remove_leftovers
from mdp.io.run.header import UPGRADES, VERSION, config_hash, current_texts, read_about, read_header
from mdp.io.weights.reading import read_weights
from tests import preloaded

Damage = Callable[[bytes, np.random.Generator], bytes]
FIXTURES = Path(__file__).parent / "fixtures"

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


def flipped(whole: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(whole)
    damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def cut(whole: bytes, rng: np.random.Generator) -> bytes:
    return whole[: rng.integers(len(whole))]


def holed(whole: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(whole)))
    length = min(int(rng.integers(1, 400)), len(whole) - start)
    return whole[:start] + bytes(length) + whole[start + length :]


def lengthened(whole: bytes, rng: np.random.Generator) -> bytes:
    return whole + bytes(int(rng.integers(1, 100)))


@pytest.mark.parametrize("damage", [flipped, cut, holed, lengthened])
def test_damage_anywhere_is_refused_by_name(tmp_path: Path, damage: Damage) -> None:
    path = tmp_path / "x"
    save(path, {**example(), "ü": torch.tensor(1)}, {"step": 1, "recipe": {"run": {"seed": 1}}})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 300:
        damaged = damage(whole, rng)
        if damaged == whole:  # a hole where there were zeros
            continue
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(path)):
            load(path)
        tried += 1


def test_another_spelling_of_the_same_header_is_refused(tmp_path: Path) -> None:
    """One flipped bit can turn a small letter of an escape into a capital, which means the same."""
    path = tmp_path / "x"
    save(path, {"ü": torch.zeros(2)}, {"step": 1})
    whole = path.read_bytes()
    assert whole.count(rb'"\u00fc"') == 1
    path.write_bytes(whole.replace(rb'"\u00fc"', rb'"\u00fC"'))
    with pytest.raises(CheckpointError, match="the header is not as mdp writes it"):
        load(path)


def test_every_bit_of_the_length_and_of_the_texts_is_guarded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save(path, {"ü": torch.zeros(2)}, {"step": 1})
    whole = path.read_bytes()
    for place in range(0, 8 * (len(whole) - 8), 3):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_about(path)


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
        b'{"__metadata__": 3}', b'{"__metadata__": {"a": 3}}',
        b'{"a": {"dtype": [], "shape": [], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "U8", "shape": [true, 4], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "U8", "shape": [4.0], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4, 4]}}',
        b'{"a": {"dtype": "U8", "shape": [0, 99999999999999999999], "data_offsets": [0, 0]}}',
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
    monkeypatch.setattr(checkpoint, "VERSION", 3)
    save(tmp_path / "x", example(), {})
    monkeypatch.undo()
    for read in (load, read_about, read_tensors):
        with pytest.raises(
            CheckpointError, match=r"x: .*written by a newer mdp \(format version 3, .* up to 2\); update"
        ):
            read(tmp_path / "x")


def test_a_file_of_version_1_is_read() -> None:
    found = load(FIXTURES / "version_1.safetensors")
    rng = torch.Generator().manual_seed(0)
    assert torch.equal(found.tensors["network.backbone.weight"], torch.randn(3, 4, generator=rng))
    assert set(found.tensors) == {
        "network.backbone.weight", "momentum.backbone.weight", "network.bn.num_batches_tracked", "state.half",
        "state.empty",
    }  # fmt: skip
    assert (found.about["step"], found.about["best"], found.about["labels"][0]["classes"]) == (
        3,
        0.25,
        ["road", "vehicle"],
    )
    assert read_about(FIXTURES / "version_1.safetensors") == found.about
    texts = current_texts(Path("x"), read_header(FIXTURES / "version_1.safetensors"))
    assert texts["version"] == str(VERSION)
    assert texts["config_sha256"] == config_hash(found.about)


def test_damage_to_a_file_of_version_1_is_refused(tmp_path: Path) -> None:
    whole = (FIXTURES / "version_1.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    for damage in (flipped, cut) * 50:
        (tmp_path / "x").write_bytes(damage(whole, rng))
        with pytest.raises(CheckpointError):
            load(tmp_path / "x")


def test_there_is_an_upgrade_from_every_older_version() -> None:
    assert sorted(UPGRADES) == list(range(1, VERSION))


def test_the_hash_of_the_settings_does_not_depend_on_their_order() -> None:
    assert config_hash({"recipe": {"a": 1, "b": [2.5]}}) == config_hash({"recipe": {"b": [2.5], "a": 1}, "step": 3})
    assert config_hash({"recipe": {"a": 1}}) != config_hash({"recipe": {"a": 2}})


def test_settings_with_numbers_for_keys_come_back_as_texts(tmp_path: Path) -> None:
    save(tmp_path / "x", {}, {"recipe": {10: 1, 9: 2}})
    assert read_about(tmp_path / "x") == {"recipe": {"10": 1, "9": 2}}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("payload_sha256", "0" * 64, "tensors together do not match"),
        ("payload_sha256", None, "'payload_sha256' is missing"),
        ("config_sha256", "0" * 64, "settings do not match"),
        ("about", "[]", "settings do not match"),
        ("about", "[" * 100_000, "nested too deeply"),
        ("version", "0", "format version is '0'"),
        ("crc32", "[]", "not a table"),
        ("crc32", "{}", "tensor a does not match"),
    ],
)
def test_every_checksum_is_looked_at(tmp_path: Path, key: str, value: str | None, message: str) -> None:
    """Forged headers, whose own checksum is right."""
    path = tmp_path / "x"
    save(path, {"a": torch.zeros(2)}, {"recipe": {}})
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    entries = json.loads(whole[8 : 8 + length])
    texts = entries.pop("__metadata__")
    del texts["header_sha256"]
    texts = {name: text for name, text in {**texts, key: value}.items() if text is not None}
    digest = hashlib.sha256(dump({**entries, "__metadata__": texts})).hexdigest()
    header = dump({**entries, "__metadata__": {**texts, "header_sha256": digest}})
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + length :])
    with pytest.raises(CheckpointError, match=message):
        load(path)


def dump(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_about_is_read_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save(path, {"a": torch.ones(1000)}, {"step": 5})
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert read_about(path) == {"step": 5}
    with pytest.raises(CheckpointError, match="tensor a does not match"):
        load(path)
    path.write_bytes(damaged[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        read_about(path)


def test_another_file_under_the_same_name_and_time_is_another_header(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    for step in (1, 2):
        save(file, {"a": torch.zeros(3)}, {"step": step})
        os.utime(file, ns=(10**9, 10**9))
        assert read_about(file)["step"] == step
        read_header(file).texts.clear()  # what a reader does to its copy is its own affair
        assert read_about(file)["step"] == step


@pytest.mark.parametrize("read", [load, read_about, read_tensors, read_weights])
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder").mkdir()
    for name in ("pipe.safetensors", "pipe.pth"):
        with pytest.raises(CheckpointError, match="found a device or pipe"):
            read(tmp_path / name)
    with pytest.raises(CheckpointError, match="found a folder"):
        read(tmp_path / "folder")
    with pytest.raises(CheckpointError, match="found a device"):
        read(Path("/dev/zero"))
    with pytest.raises(CheckpointError, match="null"):
        read(Path("a\0b"))


def test_a_file_that_becomes_a_pipe_while_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    flags: list[int] = []
    plain, really_open = os.stat(__file__), os.open
    monkeypatch.setattr(Path, "stat", lambda *_, **__: plain)
    monkeypatch.setattr(os, "open", lambda path, flag: (flags.append(flag), really_open(path, flag | os.O_NONBLOCK))[1])
    with pytest.raises(CheckpointError, match="found a device or pipe"):
        load(tmp_path / "pipe")
    assert flags[0] & os.O_NONBLOCK  # without it the call would wait for a writer


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the highest use of memory is read from /proc")
def test_reading_takes_the_memory_of_the_file_once(tmp_path: Path) -> None:
    """In a process of its own, whose highest use of memory is the reading's."""
    path = tmp_path / "x"
    save(path, {"a": torch.zeros(16 * 2**20), "b": torch.zeros(8 * 2**20)}, {})  # 96 MiB
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom mdp.io.run.checkpoint import load\n"
        "def highest(): return int(re.search(r'VmHWM:\\s+([0-9]+) kB', Path('/proc/self/status').read_text())[1])\n"
        "before = highest()\nload(Path(sys.argv[1]))\nprint((highest() - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert 80 < float(done.stdout) < 1.3 * 96


def test_sizes_that_the_file_does_not_have_are_not_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> Tensor:
        raise AssertionError("allocated")

    monkeypatch.setattr(torch, "empty", none)
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match="8 bytes of tensors where 4000000000 are described"):
        read_tensors(tmp_path / "x")


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


def test_the_error_of_a_full_disk_says_how_much_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(
        ResourceError, match=r"x: cannot be written \(3.8 MiB\): No space .*; [0-9.]+ MiB are free there"
    ):
        save(tmp_path / "x", {"a": torch.zeros(1_000_000)}, {})
    assert list(tmp_path.iterdir()) == []


def test_writes_that_take_less_than_was_given_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: max(1, len(data) // 2)]))
    save(tmp_path / "x", example(), {"step": 1})
    assert torch.equal(load(tmp_path / "x").tensors["a.weight"], example()["a.weight"])


def test_a_save_survives_failing_at_any_file_operation() -> None:
    """The short version of the crash points, which also holds the order of write, sync and rename against a trace."""
    done = preloaded.run(["-m", "tests.stress.crashpoints", "--short"], FIXTURES.parent.parent)
    assert done.code == 0, done.out + done.err
    assert done.out.splitlines()[-1] == "139 points, 0 problems"


def run_folder(home: Path, **steps: int) -> Path:
    """A run folder with checkpoints of these names and steps."""
    (home / "checkpoints").mkdir(parents=True)
    for name, step in steps.items():
        save(home / "checkpoints" / f"{name}.safetensors", {"a": torch.tensor(step)}, {"step": step})
    return home


def spoil(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)


def test_the_previous_file_is_kept_on_request(tmp_path: Path) -> None:
    last, previous = tmp_path / "last", tmp_path / "previous"
    for step in (1, 2, 3):
        save(last, example(), {"step": step}, previous=previous)
        assert previous.exists() == (step > 1)
    assert (load(last).about, load(previous).about) == ({"step": 3}, {"step": 2})
    assert len(list(tmp_path.iterdir())) == 2


def test_a_rename_that_fails_puts_the_old_file_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, previous = tmp_path / "last", tmp_path / "previous"
    save(last, example(), {"step": 1})
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if source.name.endswith(".tmp"):
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ResourceError, match="last: cannot be written"):
        save(last, example(), {"step": 2}, previous=previous)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert load(last).about == {"step": 1}


def test_the_newest_whole_checkpoint_is_the_one_with_the_highest_step(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, last=9, best=7, step_00000010=10, step_2=2, previous=8)
    path, found, skipped = newest_whole(folder)
    assert (path.stem, found.about["step"], skipped) == ("step_00000010", 10, {})


def test_of_equal_steps_the_last_checkpoint_is_taken(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, best=7, step_7=7, previous=7, last=7)
    assert newest_whole(folder)[0].stem == "last"


def test_steps_are_compared_as_numbers(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, step_50=50, step_1000=1000, step_900=900)
    assert newest_whole(folder)[1].about["step"] == 1000


def test_damaged_checkpoints_are_passed_over_by_name(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, last=9, previous=8, best=7)
    home = folder / "checkpoints"
    spoil(home / "last.safetensors")
    (home / "previous.safetensors").write_bytes(b"")
    os.mkfifo(home / "step_00000012.safetensors")
    path, found, skipped = newest_whole(folder)
    assert (path.stem, found.about["step"]) == ("best", 7)
    assert len(skipped) == 3
    for line, (name, reason) in zip(
        sorted(skipped.values()),
        [("last", "does not match its checksum"), ("previous", "cut short"), ("step_00000012", "pipe")],
        strict=True,
    ):
        assert line.startswith(str(home / f"{name}.safetensors"))
        assert reason in line


def test_no_whole_checkpoint_is_an_error_that_names_all(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, last=9, best=7)
    for path in (folder / "checkpoints").iterdir():
        spoil(path)
    with pytest.raises(CheckpointError, match=r"none of its 2 checkpoints is whole: .*last\.saf.*; .*best\.saf"):
        newest_whole(folder)
    with pytest.raises(CheckpointError, match="no checkpoint in it"):
        newest_whole(tmp_path / "nothing")


@pytest.mark.parametrize("step", [None, "9", True, float("nan")])
def test_a_checkpoint_without_a_number_for_its_step_is_passed_over(tmp_path: Path, step: object) -> None:
    folder = run_folder(tmp_path, last=1)
    save(folder / "checkpoints" / "best.safetensors", {}, {"step": step})
    path, _, skipped = newest_whole(folder)
    assert (path.stem, len(skipped)) == ("last", 1)


def test_leftovers_of_dead_processes_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, last=1)
    dead = subprocess.Popen(["true"])
    dead.wait()
    home = folder / "checkpoints"
    stale = [
        home / f".last.safetensors.{dead.pid}.tmp",
        home / f".x.{2**40}.tmp",
        folder / f".status.json.{os.getpid()}.tmp",
    ]
    kept = [
        home / f".last.safetensors.{os.getppid()}.tmp",
        home / ".tmp",
        home / ".a.tmp",
        home / "a.1.tmp",
        folder / ".lock",
    ]
    for path in (*stale, *kept):
        path.touch()
    assert sorted(remove_leftovers(folder)) == sorted(stale)
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in (*kept, home / "last.safetensors"))


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


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=6))
def test_we_read_what_the_official_library_writes(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[torch.dtype, list[int]]]
) -> None:
    official = pytest.importorskip("safetensors.torch")
    path = tmp_path_factory.mktemp("c") / "x.safetensors"
    tensors = {f"ü{i}": (torch.randn(shape) * 9).to(dtype) for i, (dtype, shape) in enumerate(kinds)}
    official.save_file(tensors, path, metadata={"made": "elsewhere"})
    back, texts = read_tensors(path)
    assert texts == {"made": "elsewhere"}
    assert {name: tensor.tolist() for name, tensor in back.items()} == {n: t.tolist() for n, t in tensors.items()}
    save(path, tensors, {})
    again = official.load_file(path)
    assert {name: tensor.tolist() for name, tensor in again.items()} == {n: t.tolist() for n, t in tensors.items()}


def test_types_we_do_not_read_are_named(tmp_path: Path) -> None:
    official = pytest.importorskip("safetensors.torch")
    official.save_file({"a": torch.zeros(2).to(torch.float8_e5m2)}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="tensor a has the type F8_E5M2; mdp reads F64, "):
        read_tensors(tmp_path / "x")


@pytest.mark.parametrize(
    "where", [b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', b'"__metadata__":{"k":"1","k":"2"},']
)
def test_a_name_that_comes_twice_in_a_header_is_refused(tmp_path: Path, where: bytes) -> None:
    header = b"{" + where + b'"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match="the same name twice"):
        read_tensors(tmp_path / "x")
