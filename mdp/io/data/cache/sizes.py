"""How large photos will be once decoded, by what their headers say; the pixels are not looked at."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mdp.io.data.pool import Pool
from mdp.io.errors import MdpError
from mdp.io.files.photos import read_claims
from mdp.io.files.reading import is_file

_GROUP = 100  # photos a thread takes at once


def pixels_of(pool: Pool, indices: Sequence[int]) -> NDArray[np.int64]:
    """The pixels of each of these samples' photos; 0 where the header cannot be read, which whoever reads it says.

    Photos that are no files (made ones, those of a program) count as large as the first of their dataset.
    """
    groups = [indices[start : start + _GROUP] for start in range(0, len(indices), _GROUP)]
    drawn: dict[str, int] = {}
    for index in indices:
        name = pool.samples[index].dataset
        if name not in drawn:
            drawn[name] = _first(pool, index)
    claims = _claims(pool, drawn)
    threads = ThreadPoolExecutor(8)  # on a network disk nearly all of it is waiting
    try:
        found = [pixels for group in threads.map(lambda group: list(map(claims, group)), groups) for pixels in group]
    finally:
        threads.shutdown(cancel_futures=True)
    return np.array(found, dtype=np.int64)


def _claims(pool: Pool, drawn: dict[str, int]) -> Callable[[int], int]:
    def claims(index: int) -> int:
        sample = pool.samples[index]
        if drawn[sample.dataset]:
            return drawn[sample.dataset]
        try:
            height, width, _ = read_claims(sample.image)
        except MdpError:
            return 0
        return height * width

    return claims


def _first(pool: Pool, index: int) -> int:
    """The pixels of a photo that is no file; 0 for a file, and for one that is not there."""
    try:
        if is_file(pool.samples[index].image):
            return 0
        _, height, width = pool.photo(index).shape
    except MdpError:
        return 0
    return height * width


def pixel_bytes(pool: Pool) -> NDArray[np.int64]:
    """The bytes of a pixel of each sample's decoded photo: three, or four for each declared channel."""
    each = {name: 4 * data.photos.channels if data.photos.channels else 3 for name, data in pool.datasets.items()}
    return np.array([each[sample.dataset] for sample in pool.samples], dtype=np.int64)
