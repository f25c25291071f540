"""Handing a batch over from a loader's worker to the main process, in a file that is memory only.

torch hands tensors over in /dev/shm, which containers keep small (Docker: 64 MB); when it is full the batch is lost and
the run waits for it for ever.  It also fetches them from the worker by a socket, for ever where the worker was stopped.
A memory file has the machine's memory for its size and no name, and is opened by its number under /proc without a
word from the worker.  Where the system has none, torch's way is left as it is.
"""

import io
import mmap
import os
import pickle
from collections import deque
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

_ALIGNED = 64  # bytes; what a tensor's memory begins at
_ENOUGH = 2**28  # bytes of shared memory with which nobody has had trouble


@cache
def memory_files() -> bool:
    """Whether the system has files that are memory only, which another process may open by their number."""
    try:
        with open(os.memfd_create("mdp"), "rb") as file:
            Path(f"/proc/{os.getpid()}/fd/{file.fileno()}").open("rb").close()
    except (OSError, AttributeError):
        return False
    return True


def shared_memory(folder: Path = Path("/dev/shm")) -> str:
    """A line about shared memory that is small, and how batches are handed over; "" where there is enough."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return ""
    free = status.f_bavail * status.f_frsize
    if free >= _ENOUGH:
        return ""
    start = f"shared memory is small ({folder}: {free / 2**20:.0f} MiB free)"
    if memory_files():
        return f"{start}: the loader hands batches over in memory files instead"
    return f"warning: {start} and this system has no memory files: --workers 0 if the run stands still"


class Layout(NamedTuple):
    """A tensor without its memory."""

    number: int  # of the buffer
    dtype: torch.dtype
    shape: tuple[int, ...]  # of its axes from the outermost in memory to the innermost
    order: tuple[int, ...]  # which axis of the tensor each of them is


class Sender:
    """A worker's side: keeps its last files open until the main process must have opened them."""

    def __init__(self, kept: int) -> None:
        """The last `kept` files stay: one more than the batches a worker is ahead, of which one is being opened."""
        self.open: deque[int] = deque()
        self.kept = kept

    def send(self, batch: Any) -> "Sent":
        """What to hand over in place of the batch.  Raises OSError when memory is short."""
        buffers: list[memoryview] = []
        text = io.BytesIO()
        _Pickler(text, buffers).dump(batch)
        while len(self.open) >= self.kept:
            os.close(self.open.popleft())
        descriptor = os.memfd_create("mdp-batch")
        self.open.append(descriptor)
        for buffer in buffers:
            _write(descriptor, buffer)
            _write(descriptor, memoryview(bytes(-len(buffer) % _ALIGNED)))
        return Sent(text.getvalue(), [len(buffer) for buffer in buffers], os.getpid(), descriptor)


class Sent:
    """A batch on its way: all of it but the tensors, and the file in which they are."""

    def __init__(self, text: bytes, sizes: list[int], process: int, descriptor: int) -> None:
        self.text, self.sizes, self.process, self.descriptor = text, sizes, process, descriptor

    def opened(self) -> Any:
        """The batch, its tensors in the memory of the file.  Raises OSError when its worker has died meanwhile."""
        if not any(self.sizes):
            return _Unpickler(io.BytesIO(self.text), [memoryview(b"")] * len(self.sizes)).load()
        with open(f"/proc/{self.process}/fd/{self.descriptor}", "r+b") as file:
            memory = memoryview(mmap.mmap(file.fileno(), 0))
        parts, start = [], 0
        for size in self.sizes:
            parts.append(memory[start : start + size])
            start += size + -size % _ALIGNED
        return _Unpickler(io.BytesIO(self.text), parts).load()

    def pin_memory(self) -> Any:
        """The batch in page-locked memory; torch's loader asks for it by this name."""
        return pin_memory(self.opened())  # type: ignore[no-untyped-call]


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class _Pickler(pickle.Pickler):
    """Pickles all but the tensors' memory, which it collects."""

    def __init__(self, file: io.BytesIO, buffers: list[memoryview]) -> None:
        super().__init__(file, protocol=5)
        self.buffers = buffers

    def persistent_id(self, thing: Any) -> Layout | None:
        if type(thing) is not Tensor:
            return None
        strides = thing.stride()
        order = sorted(range(thing.dim()), key=lambda axis: -strides[axis])  # as its memory lies
        lying = thing.detach().permute(order).contiguous()
        flat: Any = lying.reshape(-1).view(torch.uint8).numpy()  # a buffer, whatever the stubs say
        self.buffers.append(memoryview(flat))
        return Layout(len(self.buffers) - 1, thing.dtype, tuple(lying.shape), tuple(order))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, parts: Iterable[memoryview]) -> None:
        super().__init__(file)
        self.parts = list(parts)

    def persistent_load(self, layout: Layout) -> Tensor:
        part = self.parts[layout.number]
        flat = torch.frombuffer(part, dtype=layout.dtype) if part else torch.empty(0, dtype=layout.dtype)
        places = [layout.order.index(axis) for axis in range(len(layout.order))]
        return flat.reshape(layout.shape).permute(places)
