"""Processes that would not do the same say so before the first step: what differs, on which, and in which file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdp.io.errors import ProcessError
from mdp.io.processes.agreement import agree
from mdp.io.processes.world import World
from mdp.io.recipe.layers import resolve
from tests.patience import LONG
from tests.preloaded import Started
from tests.test_distributed import RUN, environment, free_port
from tests.together import worlds
from tests.trees import camvid_tree, grey, photo


def other_label_map(machine: Path) -> str:
    path = machine / "data" / "CamVid" / "trainannot" / "0001TP_000001.png"
    grey(path, np.where(np.asarray(Image.open(path)) == 10, 3, 10).astype(np.uint8))
    return "camvid train: 1 label map (CamVid/trainannot/0001TP_000001.png) different; start them with the same files"


def other_photo(machine: Path) -> str:
    photo(machine / "data" / "CamVid" / "val" / "0001TP_000000.png", 9)
    return "camvid val: 1 photo (CamVid/val/0001TP_000000.png) different; start them with the same files"


def other_weights(machine: Path) -> str:
    (machine / "w.pth").write_bytes(b"other weights")
    return "the --init file is not the same on all processes: process 1 of 2 differs from process 0"


@pytest.mark.parametrize("change", [other_label_map, other_photo, other_weights], ids=lambda change: change.__name__)
def test_two_machines_with_other_files_of_equal_names_do_not_train(
    change: Callable[[Path], str], tmp_path: Path
) -> None:
    """Two folders stand for two machines: all paths are relative to them."""
    machines = [tmp_path / "a", tmp_path / "b"]
    camvid_tree(machines[0] / "data")
    (machines[0] / "w.pth").write_bytes(b"weights")
    shutil.copytree(*machines)
    words = change(machines[1])
    arguments = ["pretrain", *RUN[2:], "--datasets", "camvid", "--init", "w.pth", "--steps", "2", "--batch-size", "2"]
    place = {**environment(), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        Started(["-m", "mdp", *arguments], machine, **place, RANK=str(rank), LOCAL_RANK="0")
        for rank, machine in enumerate(machines)
    ]
    said = []
    for process in started:
        with process:
            assert process.wait(LONG) == ProcessError.exit_code
            said.append(process.communicate()[1])
    assert all(words in text and text.count("\n") == 1 for text in said)  # people at either machine read it
    assert not any((machine / "runs").exists() for machine in machines)


def test_another_checkpoint_is_named_before_settings_that_came_with_it(tmp_path: Path) -> None:
    for rank in range(3):
        (tmp_path / f"{rank}.safetensors").write_bytes(b"changed" if rank == 2 else b"as it was")
    recipes = [resolve({}), resolve({}), resolve({"pretrain": {"lr": 0.7}})]

    def work(world: World) -> str:
        files = {"the checkpoint": tmp_path / f"{world.rank}.safetensors"}
        with pytest.raises(ProcessError) as error:
            agree(world, recipes[world.rank], [], [], files)
        return str(error.value)

    words = "the checkpoint is not the same on all processes: process 2 of 3 differs from process 0; "
    assert worlds(3, work) == [f"{words}start them with the same files"] * 3
