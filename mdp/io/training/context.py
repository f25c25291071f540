"""The context that a run happens in: its folder, journal, device and processes, and what all runs do with them."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mdp.io.data.cache.on_device import Drawing, OnDevice, stack_asked
from mdp.io.data.handing_over import shared_memory
from mdp.io.data.loader import Forgiving, load, to_device
from mdp.io.data.pool import Key, Pool
from mdp.io.data.workers import Watch
from mdp.io.errors import MdpError
from mdp.io.files import jpeg
from mdp.io.files.images import png_bytes
from mdp.io.files.writing import make, write_atomically
from mdp.io.journal.counter import number_of
from mdp.io.journal.journal import Journal
from mdp.io.processes.world import World
from mdp.io.recipe.settings import RunSettings
from mdp.io.run.checkpoint import save
from mdp.io.run.record import RunRecord


@dataclass(kw_only=True)
class RunContext:
    """The context that a run happens in."""

    folder: Path
    journal: Journal
    device: torch.device
    world: World
    skipped: int = 0  # samples that could not be read and were left out, by this process
    hints: bool = True  # whether to say what may make a run faster

    def save(self, name: str, tensors: Mapping[str, Tensor], record: RunRecord) -> None:
        """Writes a checkpoint, if this is the main process; the last one but one is kept as `previous`."""
        if not self.world.main:
            return
        home = self.folder / "checkpoints"
        previous = home / "previous.safetensors" if name == "last" else None
        save(home / f"{name}.safetensors", tensors, record.as_json(), previous)

    def picture(self, name: str, draw: Callable[[], Image.Image]) -> None:
        """Draws a picture into the run's folder, if this is the main process: `samples/first.png`."""
        if self.world.main:
            path = self.folder / name
            make(path.parent)
            write_atomically(path, [png_bytes(draw())])
            self.journal.picture(self.journal.step, path)

    def skip(self, error: MdpError) -> None:
        """Reports a sample that could not be read, and counts it."""
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
        finished: Callable[[Any], Any],
        stop: Callable[[], object],
    ) -> Generator[Any, None, None]:
        """The stacked items of the keys, on the device and `finished` there if it is a GPU.

        With --on-bad-sample skip, what cannot be read is replaced by the next sample.
        """
        if has_jpeg(pool):
            self.journal.say(f"JPEG photos are decoded by {jpeg.decoder()}, {number_of(settings.loaders, 'worker')}")
        near, skipped, pin = None, None, self.device.type == "cuda"
        if settings.cache == "device" and pool.kept is not None:
            near = OnDevice(items, pool.kept, stack, self.device)
            items, stack = Drawing(items, pool.kept), stack_asked
        if settings.on_bad_sample == "skip":
            items, skipped = Forgiving(items, len(pool.samples)), self.skip
        small = shared_memory() if settings.loaders else ""
        if small:
            self.journal.say(small)
        watch = Watch(lambda key: pool.name(key[1]), self.journal.warn, stop)
        batches = load(items, keys, settings.loaders, skipped, stack, pin, watch)
        return to_device(batches, self.device, near.cut_ if near else None, finished)

    def advice(self, pool: Pool, workers: int) -> str:
        """The advice for a run that waits for data; "" where hints are not wanted."""
        if not self.hints:
            return ""
        words = "more --workers may help" if workers else "--workers 0 loads between the steps; raise it"
        if not has_jpeg(pool):
            return words
        words += "" if pool.kept else ", or --set run.cache=memory"
        return words + ("" if jpeg.simplejpeg() else f", or {jpeg.INSTALL}")


def has_jpeg(pool: Pool) -> bool:
    """Whether any photo is a JPEG file, by its name; generated datasets have none."""
    return any(sample.image.lower().endswith((".jpg", ".jpeg")) for sample in pool.samples)
