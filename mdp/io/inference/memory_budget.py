"""The memory that inference may take beyond the network and the image, and what fits into it.

A budget outlives an image: what was found for one size of window, and that memory ran out, need not be found again.
"""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import nn

from mdp.core.windows import LEAST_CLASSES, Windows
from mdp.io.errors import ResourceError
from mdp.io.inference.activation_memory import activation_bytes
from mdp.io.recipe.settings import EvalSettings, bytes_of

_WINDOWS = 2**19  # pixels of windows at a time: 96-pixel ones run 2.2 times faster together than one by one, on a CPU
_CLASSES = 2**28  # bytes of class scores at the image's resolution at a time, where no limit is set
_SLACK = 1.15  # measured: a pass of DeepLab with ResNet-50 took 1.02 to 1.16 times what `activation_bytes` says,
_BASE = 2**27  # and what its libraries take once; 80 MB of it are what torch imports for its meta device
_PIXEL = 44  # bytes for each pixel of a running maximum


class Budget:
    """How many windows, and how many classes, are computed at a time."""

    def __init__(self, limit: int | None = None, say: Callable[[str], None] | None = None) -> None:
        self.limit, self.say = limit, say
        self.most: int | None = None  # windows at a time, once memory has run out
        self.costs: dict[tuple[int, int], int] = {}  # bytes of one window of a size

    def windows(self, network: nn.Module, size: tuple[int, int], held: int, device: torch.device) -> int:
        """How many windows of a size go through the network together, beside `held` bytes.

        Raises ResourceError when the limit does not allow one.
        """
        count = max(1, _WINDOWS // (size[0] * size[1]))
        if self.limit is not None:
            cost = self._cost(network, size)
            fits = (self.limit - held - _BASE) // cost
            if fits < 1:
                _refuse(held + _BASE + cost, self.limit, f"{size[1]} x {size[0]} pixels in one pass")
            count = fits if device.type != "cpu" else min(count, fits)
        return min(count, self.most or count)

    def _cost(self, network: nn.Module, size: tuple[int, int]) -> int:
        if size not in self.costs:
            self.costs[size] = int(_SLACK * activation_bytes(network, size))
        return self.costs[size]

    def shrink(self, count: int, size: tuple[int, int]) -> None:
        """Memory ran out with so many windows of a size: half of them next time, which is said once.

        Raises ResourceError when it was one.
        """
        if count == 1:
            raise ResourceError(
                f"out of memory with {size[1]} x {size[0]} pixels in one pass; give --mode slide with a smaller "
                "eval.window, a smaller eval.scale, or --device cpu"
            )
        if self.most is None and self.say:
            self.say(f"out of memory with {count} windows together; going on with fewer")
        self.most = count // 2

    def classes(self, views: list[Windows], size: tuple[int, int]) -> int:
        """How many classes are put together at a time at an image's size (H, W).

        Raises ResourceError when the limit does not allow 19, or all where there are fewer.
        """
        pixels, canvas = size[0] * size[1], max(view.canvas[0] * view.canvas[1] for view in views)
        slides = any(view.window != view.canvas for view in views)
        largest = max(view.window[0] * view.window[1] for view in views) if slides else 0
        resized = canvas if any(view.canvas != size for view in views) or slides else 0
        copies = 4 if len(views) > 1 else 2 if views[0].flip else 1
        each = 4 * (copies * pixels + resized + largest)  # bytes of a class, in float32
        if self.limit is None:
            return max(LEAST_CLASSES, _CLASSES // each)
        held = _BASE + held_bytes(views) + (_PIXEL + 4 * len(views)) * pixels + 4 * canvas
        count, least = (self.limit - held) // each, min(LEAST_CLASSES, views[0].classes)
        if count < least:
            _refuse(held + least * each, self.limit, f"the scores of {size[1]} x {size[0]} pixels")
        return count


def new_budget(settings: EvalSettings, say: Callable[[str], None] | None = None) -> Budget:
    """The budget that the settings allow."""
    return Budget(bytes_of(settings.max_memory) if settings.max_memory else None, say)


def held_bytes(views: list[Windows]) -> int:
    """The bytes of the windows' logits."""
    return sum(batch.numel() * batch.element_size() for view in views for batch in view.logits)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def _refuse(needed: int, limit: int, what: str) -> NoReturn:
    raise ResourceError(
        f"eval.max_memory allows {megabytes(limit)} beyond the network, and {what} need about {megabytes(needed)}; "
        "raise --max-memory, or give --mode slide with a smaller eval.window or a smaller eval.scale"
    )


def megabytes(count: int) -> str:
    """Bytes for people.

    >>> megabytes(2_000_000_000)
    '2,000 MB'
    """
    return f"{-(-count // 10**6):,} MB"
