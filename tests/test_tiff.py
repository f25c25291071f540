"""TIFF files of every way of storing numbers: what was stored comes out, or the kind is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdp.io.files.tiff import pixels, read_tiff
from tests.tiffs import tiff

TYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8")


@given(
    st.sampled_from(TYPES),
    st.sampled_from("<>"),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(0, 0), (0, 3), (16, 0)]),
    st.sampled_from([1, 2, 3, 5]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**31),
)
def test_every_way_to_store_numbers_gives_back_what_was_stored(
    tmp_path_factory: pytest.TempPathFactory, kind: str, order: str, big: bool, planes: bool, cut: tuple[int, int],
    bands: int, size: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "any.tif"
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (*size, bands * np.dtype(kind).itemsize), dtype=np.uint8).view(kind)
    for deflate, predictor in ((False, 1), (True, 1), (True, 3 if kind[0] == "f" else 2)):
        tiff(path, values, order=order, big=big, planes=planes, tile=cut[0], rows=cut[1], deflate=deflate,
             predictor=predictor)  # fmt: skip
        data = path.read_bytes()
        assert pixels(data, read_tiff(data)).tobytes() == values.tobytes()


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_what_libtiff_unpacks_is_read_as_libtiff_reads_it(tmp_path: Path, compression: str, predictor: int) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 4, (50, 70, 3), dtype=np.uint8)
    try:
        Image.fromarray(rgb).save(tmp_path / "a.tif", compression=compression, tiffinfo={317: predictor})
    except (OSError, ValueError, KeyError):
        pytest.skip(f"this libtiff has no {compression}")
    data = (tmp_path / "a.tif").read_bytes()
    assert np.array_equal(pixels(data, read_tiff(data)), rgb)
    numbers = rng.integers(0, 2**31, (50, 70), dtype=np.int32)
    Image.fromarray(numbers).save(tmp_path / "b.tif", compression=compression)
    data = (tmp_path / "b.tif").read_bytes()
    assert np.array_equal(pixels(data, read_tiff(data))[..., 0], numbers)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_samples_below_a_byte_are_unpacked(tmp_path: Path, bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (5, 9), dtype=np.uint8)
    rows = np.unpackbits(values[..., None], axis=2)[..., -bits:].reshape(5, -1)
    packed = np.packbits(rows, axis=1)
    tiff(tmp_path / "a.tif", packed, tags={256: (9,), 258: (bits,)})
    data = (tmp_path / "a.tif").read_bytes()
    assert np.array_equal(pixels(data, read_tiff(data))[..., 0], values)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ({259: (6,)}, "JPEG compression"),
        ({259: (34887,)}, "LERC"),
        ({258: (12,)}, "12 bits"),
        ({339: (6,)}, "not read"),
        ({259: (8,), 317: (7,)}, "predictor 7"),
        ({278: (0,)}, "do not cover"),
        ({257: (4000,), 278: (4000,)}, "ends before"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, spoil: dict[int, tuple[int, ...]], says: str) -> None:
    deflate = spoil.get(259) == (8,)
    data = tiff(tmp_path / "a.tif", np.zeros((4, 4), dtype=np.uint16), deflate=deflate, tags=spoil).read_bytes()
    with pytest.raises(ValueError, match=says):
        pixels(data, read_tiff(data))


def test_pages_are_counted_and_smaller_copies_are_none(tmp_path: Path) -> None:
    values = np.zeros((4, 4), dtype=np.uint8)
    make: Callable[..., Path] = tiff
    assert read_tiff(make(tmp_path / "a.tif", values).read_bytes()).pages == 1
    assert read_tiff(make(tmp_path / "b.tif", values, pages=30, big=True).read_bytes()).pages == 30
    assert read_tiff(make(tmp_path / "c.tif", values, pages=5, tags={254: (1,)}).read_bytes()).pages == 1
