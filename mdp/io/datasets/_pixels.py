"""Readers of pixels for dataset files: NumPy and Pillow are imported when the first photo or label map is read.

Names, classes, counts and terms of datasets need neither, and `mdp datasets` answers without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_rgb(path: str) -> NDArray[np.uint8]:
    """A photo (H, W, 3); see `mdp.io.files.photos.read_rgb`."""
    from mdp.io.files import photos  # noqa: PLC0415

    return photos.read_rgb(path)


def read_labels(path: str) -> NDArray[np.integer]:
    """The raw values (H, W) of a label map; see `mdp.io.files.label_maps.read_labels`."""
    from mdp.io.files import label_maps  # noqa: PLC0415

    return label_maps.read_labels(path)


def read_packed_labels(path: str) -> NDArray[np.uint16]:
    """Ids (H, W) of red + 256 * green; see `mdp.io.files.label_maps.read_packed_labels`."""
    from mdp.io.files import label_maps  # noqa: PLC0415

    return label_maps.read_packed_labels(path)


def read_label_mat(path: str, name: str) -> NDArray[np.integer]:
    """The matrix of that name (H, W) in a `.mat` file; see `mdp.io.files.matlab.read_label_mat`."""
    from mdp.io.files import matlab  # noqa: PLC0415

    return matlab.read_label_mat(path, name)


def count_values(path: str) -> NDArray[np.int64]:
    """How many pixels of a label map have each raw value, 0 to 65535."""
    import numpy as np  # noqa: PLC0415

    return np.bincount(read_labels(path).ravel(), minlength=65536)
