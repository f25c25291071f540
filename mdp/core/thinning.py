"""Long curves on few pixels: of each bucket of x only the points that a line drawn through all of them would show.

These are the first, lowest, highest and last (Jugel et al., "M4", VLDB 2014), so that no spike is lost.

Shape legend: N points, K points that are kept, M buckets that hold points.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def thin(x: Numbers, y: Numbers, buckets: int) -> NDArray[np.int64]:
    """The places (K,) of the points (N,) that matter, at most four a bucket; the buckets of x are equally wide.

    Raises ValueError for lengths that differ, x that does not ascend, numbers that are not finite, or no bucket.

    >>> thin(np.arange(8.0), np.array([0, 1, 9, 2, 3, 4, -5, 6.0]), 2).tolist()
    [0, 2, 3, 4, 6, 7]
    """
    place, starts = _buckets(x, y, buckets)
    ends = np.append(starts[1:], len(x)) - 1
    order = np.lexsort((y, place))  # by value within each bucket, ties by place
    return np.unique(np.concatenate([starts, ends, order[starts], order[ends]])).astype(np.int64)


def bucket_means(x: Numbers, y: Numbers, buckets: int) -> tuple[Numbers, Numbers]:
    """The means (M,), (M,) of the points (N,) in each bucket that holds some.  Raises ValueError as `thin` does.

    >>> [means.tolist() for means in bucket_means(np.array([0, 1, 9, 10.0]), np.array([1, 3, 5, 7.0]), 5)]
    [[0.5, 9.5], [2.0, 6.0]]
    """
    _, starts = _buckets(x, y, buckets)
    counts = np.diff(np.append(starts, len(x)))
    shares = np.repeat(1 / counts, counts)  # divided first: the sum of large numbers may be no number
    return np.add.reduceat(x * shares, starts), np.add.reduceat(y * shares, starts)


def _buckets(x: Numbers, y: Numbers, buckets: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bucket (N,) of each point and the first point (M,) of each bucket that holds some."""
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"x and y: expected as many numbers each, one at least, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or bool((np.diff(x) < 0).any()):
        raise ValueError("x and y: expected finite numbers, x ascending")
    if buckets < 1:
        raise ValueError(f"buckets: expected 1 at least, got {buckets}")
    width = x[-1] - x[0]
    shares = (x - x[0]) / width if width > 0 else np.zeros_like(x)
    place = np.minimum((shares * buckets).astype(np.int64), buckets - 1)
    return place, np.flatnonzero(np.diff(place, prepend=-1))
