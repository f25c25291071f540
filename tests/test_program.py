"""Whole runs from Python: the jobs of the command line, with datasets and transforms that are objects of a program."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdp.io import Dataset, LabelSpace, Recipe, Sample, evaluate, finetune, predict, pretrain
from mdp.io.data.pool import name_of
from mdp.io.datasets import load
from mdp.io.errors import CheckpointError, DatasetError, MdpError, RecipeError
from mdp.io.files.images import write_rgb
from mdp.io.recipe.layers import as_layer, resolve
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_pretraining
from tests.small_runs import TINY, losses, tensors_of


def samples(root: Path, split: str) -> list[Sample]:
    numbers = range(6) if split == "train" else range(6, 8)
    return [Sample(f"scene {number}", f"scene {number} (labels)", "mine") for number in numbers]


def read(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(int(sample.image.split()[1]))
    labels = np.repeat(np.arange(40)[:, None] > rng.integers(10, 30), 48, axis=1).astype(np.uint8)
    return (labels[..., None] * 100 + rng.integers(0, 90, (40, 48, 3))).astype(np.uint8), labels


def dataset(name: str = "mine", **other: Any) -> Dataset:
    facts = {
        "labels": LabelSpace(name=name, classes=("sky", "ground")),
        "splits": {"train": None, "val": None},
        "train": ("train",),
        "val": "val",
        "samples": samples,
        "read": read,
    }
    return Dataset(name=name, **{**facts, **other})  # type: ignore[arg-type]


def darker(image: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return (image * float(torch.rand((), generator=rng))).to(torch.uint8), labels.roll(1, 1)


MINE = dataset()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the runs of this file are."""
    folder = tmp_path_factory.mktemp("program")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def recipe(**more: Any) -> dict[str, Any]:
    layer = as_layer(resolve(TINY, {"pretrain": {"steps": 4, "batch_size": 4, "validate_epochs": 0}}))
    layer["run"].update({"keep_steps": 2, **more})
    return layer


@pytest.fixture(scope="module")
def pretrained(place: Path) -> Path:
    return pretrain(recipe(), [MINE, "shapes-coarse"], transform=darker, out=place / "first", report=False)


def test_a_run_keeps_the_names_of_a_programs_own_dataset_and_transform(pretrained: Path) -> None:
    config = (pretrained / "config.yaml").read_text()
    assert "transform: tests.test_program.darker" in config
    assert "mine" in (pretrained / "labels.json").read_text()
    assert (pretrained / "command.txt").read_text().startswith("mdp.io.pretrain in ")
    assert json.loads((pretrained / "status.json").read_text())["state"] == "done"


def test_a_transform_changes_what_is_learnt_the_same_by_any_number_of_workers(pretrained: Path, place: Path) -> None:
    again = pretrain(recipe(workers=2), [MINE, "shapes-coarse"], transform=darker, out=place / "again", report=False)
    assert losses(again) == losses(pretrained)
    plain = pretrain(recipe(), [MINE, "shapes-coarse"], out=place / "plain", report=False)
    assert losses(plain) != losses(pretrained)


def test_a_run_with_a_transform_goes_on_to_the_same_bits_by_its_program_only(pretrained: Path, place: Path) -> None:
    folder = place / "resumed"
    shutil.copytree(pretrained, folder, ignore=shutil.ignore_patterns("last.*", "previous.*", "best.*"))
    (folder / "checkpoints" / "step_00000002.safetensors").rename(folder / "checkpoints" / "last.safetensors")
    with pytest.raises(RecipeError, match=r"'tests\.test_program\.darker' is a function of a Python program"):
        run_pretraining(Request(resume=str(folder), quiet=True))  # the command line
    with pytest.raises(RecipeError, match=r"data\.transform differ from the run's"):
        pretrain(None, [MINE, "shapes-coarse"], resume=folder, transform=unchanged)
    pretrain(None, [MINE, "shapes-coarse"], resume=folder, transform=darker, report=False)
    first, second = tensors_of(pretrained), tensors_of(folder)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def unchanged(image: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return image, labels


def test_all_four_jobs_run_one_after_the_other_and_print_nothing(
    pretrained: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    own = recipe(deterministic=True, threads=2)
    own["finetune"].update({"steps": 2, "validate_steps": 0, "batch_size": 2})
    tuned = finetune(resolve(own), MINE, init=pretrained, out=place / "tuned", report=False)
    scores = evaluate(tuned, MINE, recipe={"eval": {"flip": True}})
    assert (scores["dataset"], scores["images"], scores["flip"]) == ("mine", 2, True)
    assert scores == json.loads((tuned / "eval" / "mine-val" / "scores.json").read_text()) | {"scales": (1.0,)}
    write_rgb(place / "photo.png", read(Sample("scene 9", "", "mine"))[0])
    done = predict(tuned, ["photo.png"], out=place / "predicted")
    assert done["predicted"] == 1
    assert (place / "predicted" / "labels" / "photo.png").is_file()
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)


def test_what_has_to_be_mended_is_an_exception_with_a_reason(place: Path) -> None:
    for call, words in (
        (lambda: pretrain(3), "recipe: expected a Recipe, a mapping"),  # type: ignore[arg-type]
        (lambda: pretrain({"pretrain": {"epoch": 3}}), "did you mean 'epochs'"),
        (lambda: pretrain({}, [3]), "dataset: expected a name"),  # type: ignore[list-item]
        (lambda: pretrain({}, ["vocc"]), "unknown dataset 'vocc'"),
        (lambda: finetune({}, MINE), "init: expected a run or a weights file"),
        (lambda: pretrain({}, [dataset("a:b")]), "expected a name without"),
        (lambda: pretrain({}, [dataset(), dataset()]), "two datasets have the same name"),
        (lambda: pretrain({}, [dataset(labels=LabelSpace(name="b", classes=("x", "y")))]), "a label space of another"),
        (lambda: predict("x", ["y"], existing="replace"), "existing: expected stop, skip or overwrite"),
    ):
        with pytest.raises(RecipeError, match=words):
            call()
    with pytest.raises(CheckpointError, match="expected a run folder or a weights file, found nothing"):
        evaluate(place / "nothing", MINE)
    assert load("shapes-coarse").name == "shapes-coarse"
    with pytest.raises(MdpError, match="unknown dataset 'mine'"):  # it was offered for the time of a call only
        load("mine")


def test_a_transform_that_gives_something_else_is_named_with_what_it_gave(place: Path) -> None:
    def half(image: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return image[:, ::2].float(), labels

    with pytest.raises(DatasetError, match=r"transform .*half: expected an image \(3, H, W\) torch.uint8.*float32"):
        pretrain(recipe(), [MINE, "shapes-coarse"], transform=half, out=place / "half", report=False)

    class Named:
        def __call__(self, image: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
            return image, labels

    assert name_of(Named()).endswith("Named")
    assert name_of(None) == ""


def test_a_run_may_be_in_another_thread_than_the_main_one(place: Path) -> None:
    found: list[Any] = []
    small = resolve(recipe(), {"pretrain": {"steps": 1}})
    assert isinstance(small, Recipe)
    call = threading.Thread(target=lambda: found.append(pretrain(small, [MINE], out=place / "thread", report=False)))
    call.start()
    call.join()
    assert [path.name for path in found] == ["thread"]
