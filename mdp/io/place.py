"""Where a run happens: its folder, journal, device and processes, and what all kinds of runs do with them."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mdp.core.labels import LabelUnion
from mdp.io import jpeg
from mdp.io.checkpoint import save, write_atomically
from mdp.io.distributed import World
from mdp.io.engine import Position
from mdp.io.errors import MdpError
from mdp.io.images import png_bytes
from mdp.io.journal import Journal, number_of
from mdp.io.loader import Forgiving, load, to_device
from mdp.io.loading import Key, Pool
from mdp.io.recipe import Recipe, RunSettings, as_layer
from mdp.io.runs import make, space_json


@dataclass(kw_only=True)
class Place:
    """Where a run happens."""

    folder: Path
    journal: Journal
    device: torch.device
    world: World
    skipped: int = 0  # samples that could not be read and were left out, by this process

    def save(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        kind: str,
        position: Position,
        recipe: Recipe,
        union: LabelUnion,
        scaler: torch.amp.GradScaler,
        **others: Any,
    ) -> None:
        """Writes a checkpoint, if this is the main process; the last one but one is kept as `previous`."""
        if not self.world.main:
            return
        about = {
            "kind": kind,
            **position.as_json(),
            "recipe": as_layer(recipe),
            "labels": [space_json(space) for space in union.spaces],
            "processes": self.world.size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "scaler": scaler.state_dict(),
            **others,
        }
        place = self.folder / "checkpoints"
        previous = place / "previous.safetensors" if name == "last" else None
        save(place / f"{name}.safetensors", tensors, about, previous)

    def picture(self, name: str, draw: Callable[[], Image.Image]) -> None:
        """Draws a picture into the run's folder, if this is the main process: `samples/first.png`."""
        if self.world.main:
            path = self.folder / name
            make(path.parent)
            write_atomically(path, [png_bytes(draw())])

    def skip(self, error: MdpError) -> None:
        """Tells of a sample that could not be read, and counts it."""
        self.skipped += 1
        self.journal.warn(f"left out: {error}")

    @property
    def finish(self) -> bool:
        """Whether the loader's workers do all there is to do for an image: a GPU does the last of it better itself."""
        return self.device.type == "cpu"

    def load(
        self,
        items: Any,
        pool: Pool,
        keys: Iterator[list[Key]],
        settings: RunSettings,
        stack: Callable[[list[Any]], Any],
    ) -> Generator[Any, None, None]:
        """The stacked items of the keys, on the device if it is a GPU.

        With --on-bad-sample skip, what cannot be read is replaced by the next sample.
        """
        self.journal.say(f"JPEG photos are decoded by {jpeg.decoder()}, {number_of(settings.workers, 'worker')}")
        skipped, pin = None, self.device.type == "cuda"
        if settings.on_bad_sample == "skip":
            items, skipped = Forgiving(items, len(pool.samples)), self.skip
        return to_device(load(items, keys, settings.workers, skipped, stack, pin), self.device)
