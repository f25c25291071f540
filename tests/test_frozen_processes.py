"""`mdp retrieve` and `mdp probe` give the same bytes whoever does the work and wherever vectors are kept."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mdp.io.errors import ResourceError
from mdp.io.processes.world import ALONE
from mdp.io.unsupervised import stored_rows
from mdp.io.unsupervised.stored_rows import row_files
from tests.frozen_ranks import everything
from tests.tensors import rng_of
from tests.test_distributed import in_processes
from tests.trees import lines


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmentation set of noise of three colours, 20 images to fit and 18 to score, and folders of three classes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    colors = np.array([(90, 90, 90), (140, 90, 90), (90, 140, 90), (90, 90, 140)])
    for split, count in {"train": 20, "val": 18}.items():
        for number in range(count):
            ids = rng.integers(0, 4, (4, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            pixels = (colors[ids] + rng.integers(-60, 60, (32, 48, 3))).astype(np.uint8)
            for path, picture in (
                (folder / "images" / split / f"{number}.png", pixels),
                (folder / "labels" / split / f"{number}.png", ids),
                (folder / "classes" / f"{ids[0, 0]}" / f"{split}{number}.png", pixels),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    splits = [f"  {split}: {{images: images/{split}, labels: labels/{split}}}" for split in ("train", "val")]
    lines(folder / "own.yaml", ["classes: {1: red, 2: green, 3: blue}", "ignore: [0]", "splits:", *splits])
    return folder


@pytest.fixture(scope="module")
def alone(photos: Path) -> dict[str, bytes]:
    """What one process writes that keeps vectors in memory."""
    everything(photos / "own.yaml", photos / "classes", photos / "alone")
    return contents(photos / "alone")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_processes_write_the_bytes_of_one(photos: Path, alone: dict[str, bytes]) -> None:
    names = {"retrieved/scores.json", "retrieved/retrieval.html", "svm/scores.json", "svm/results.csv",
             "svm/activations.png", "sgd/scores.json"}  # fmt: skip
    assert names < {*alone}
    arguments = [str(photos / "own.yaml"), str(photos / "classes"), str(photos / "two")]
    in_processes(2, "-m", "tests.frozen_ranks", *arguments)
    assert contents(photos / "two") == alone


def test_vectors_on_disk_give_the_bytes_of_those_in_memory_and_leave_nothing(
    photos: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_rows, "IN_MEMORY", 0)
    monkeypatch.setattr("mdp.io.unsupervised.retrieve._PART", 640)  # ten rows of the bank at a time
    everything(photos / "own.yaml", photos / "classes", photos / "disk")
    assert contents(photos / "disk") == alone
    assert [path.name for path in photos.iterdir() if path.name.startswith(".")] == []


def test_rows_come_back_as_they_were_put_and_their_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(7, 3, generator=rng_of(0))
    for limit, where in ((10**6, "in memory"), (0, str(tmp_path))):
        monkeypatch.setattr(stored_rows, "IN_MEMORY", limit)
        with row_files(tmp_path / "not yet there", ALONE, bank=(7, 3), queries=(2, 3)) as (stored, line):
            assert line.startswith("9 region vectors: 0.0 MB, in ")
            assert where in line
            assert list(tmp_path.iterdir()) == []  # nothing is left behind where the command is killed now
            stored["bank"].put(2, rows[2:])
            stored["bank"].put(0, rows[:2])
            assert torch.equal(stored["bank"].between(1, 20), rows[1:])
            parts = list(stored["bank"].parts(3))
        assert [start for start, _ in parts] == [0, 3, 6]
        assert torch.equal(torch.cat([part for _, part in parts]), rows)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_rows, "IN_MEMORY", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=150_000_000))
    refused = pytest.raises(ResourceError, match=r"the region vectors take 0\.4 GB and 0\.1 GB are free; see --out")
    with refused, row_files(tmp_path, ALONE, bank=(10**6, 100)):
        pass
