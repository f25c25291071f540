"""Quicker decoding of JPEG photos where simplejpeg is installed (the extra `fast`): the same bits as Pillow's, or none.

Both are libjpeg-turbo with its exact transform and smooth chroma.  simplejpeg writes RGB at once, Pillow pixels of four
bytes that are packed and copied.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

INSTALL = "pip install 'mdp-segmentation[fast]' for JPEG photos"


# who wants to know what the strict decoder says of damage that Pillow passes over
_HEARD: ContextVar[tuple[list[str], ...]] = ContextVar("objections", default=())


@contextmanager
def objections() -> Iterator[list[str]]:
    """What the strict decoder objects to, in the files that are decoded inside; nothing without the extra."""
    heard: list[str] = []
    token = _HEARD.set((*_HEARD.get(), heard))
    try:
        yield heard
    finally:
        _HEARD.reset(token)


@cache
def simplejpeg() -> ModuleType | None:
    """The library, if it is installed."""
    try:
        import simplejpeg as library  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return library  # type: ignore[no-any-return]


def decoder() -> str:
    """The decoder of JPEG photos on this machine, with its version."""
    library = simplejpeg()
    return f"simplejpeg {library.__version__}" if library else f"Pillow {PIL.__version__}"


def quick_rgb(data: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """The pixels (H, W, 3) of a JPEG file whose header `image` is; None where Pillow is to decode it.

    That is without the extra, for CMYK, which the two convert differently, and for whatever simplejpeg finds wrong:
    Pillow refuses some damage and passes over other, and its verdict counts.
    """
    library = simplejpeg()
    if not library or image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    try:
        pixels: NDArray[np.uint8] = library.decode_jpeg(data, "RGB", strict=True)
    except ValueError as error:
        for heard in _HEARD.get():
            heard.append(str(error))
        return None
    return pixels if pixels.shape == (image.height, image.width, 3) else None
