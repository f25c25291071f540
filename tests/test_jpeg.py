"""Quicker decoding of JPEG photos: the bits, and the refusals, are those of Pillow."""

import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mdp.io.errors import DatasetError
from mdp.io.files import jpeg
from mdp.io.files.photos import read_rgb

SIZES = [(1, 1), (2, 1), (3, 5), (8, 8), (9, 17), (63, 95)]  # height, width


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("simplejpeg")


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Waves and grain, with sharp colours: chroma that a wrong upsampling would show."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([128 + 90 * np.sin(x / 9 + c) + 60 * np.cos(y / (7 + c)) for c in range(3)], -1)
    grainy = waves + rng.normal(0, 20, (height, width, 3))
    return Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def read(path: Path, data: bytes) -> NDArray[np.uint8] | str:
    """The pixels of the file, or the message with which it is refused."""
    path.write_bytes(data)
    try:
        return read_rgb(str(path))
    except DatasetError as error:
        return str(error)


def by_pillow(path: Path, data: bytes) -> NDArray[np.uint8] | str:
    """The same without the extra."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "simplejpeg", lambda: None)
        return read(path, data)


def same(first: NDArray[np.uint8] | str, second: NDArray[np.uint8] | str) -> bool:
    return first == second if isinstance(first, str) or isinstance(second, str) else np.array_equal(first, second)


def header_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
def test_every_chroma_sampling_gives_pillows_bits_and_not_by_asking_pillow(
    sampling: str, mode: str, tmp_path: Path
) -> None:
    for (height, width), progressive, quality in product(SIZES, [False, True], [10, 90, 100]):
        options = {"subsampling": sampling, "progressive": progressive, "quality": quality}
        data = encoded(picture(height, width, mode), **options)
        quick = jpeg.quick_rgb(data, header_of(data))
        assert quick is not None
        expected = by_pillow(tmp_path / "a.jpg", data)
        assert same(quick, expected), (height, width, progressive, quality)
        assert same(read(tmp_path / "a.jpg", data), expected)


def test_restart_markers_metadata_and_what_follows_the_picture_change_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # turned; never applied
    turned = encoded(picture(40, 60), exif=exif.tobytes())
    for data in (turned, encoded(picture(40, 60), restart_marker_blocks=2), encoded(picture(9, 9)) + b"film" * 50):
        assert same(read(tmp_path / "a.jpg", data), by_pillow(tmp_path / "a.jpg", data))
    assert jpeg.quick_rgb(turned, header_of(turned)).shape == (40, 60, 3)  # type: ignore[union-attr]


def test_four_inks_are_left_to_pillow(tmp_path: Path) -> None:
    data = encoded(picture(16, 24, "CMYK"))
    assert jpeg.quick_rgb(data, header_of(data)) is None
    assert same(read(tmp_path / "a.jpg", data), by_pillow(tmp_path / "a.jpg", data))


def test_without_the_extra_pillow_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jpeg.decoder().startswith("simplejpeg ")
    data = encoded(picture(8, 8))
    monkeypatch.setattr(jpeg, "simplejpeg", lambda: None)
    assert jpeg.decoder().startswith("Pillow ")
    assert jpeg.quick_rgb(data, header_of(data)) is None


@pytest.mark.parametrize("progressive", [False, True])
def test_a_photo_cut_short_anywhere_is_refused_in_pillows_words(progressive: bool, tmp_path: Path) -> None:
    data = encoded(picture(64, 96), quality=90, progressive=progressive)
    path = tmp_path / "cut.jpg"
    for part in range(1, 20):
        message = read(path, data[: len(data) * part // 20])
        assert isinstance(message, str)
        assert message == by_pillow(path, data[: len(data) * part // 20])
    assert same(read(path, data[:-2]), by_pillow(path, data[:-2])), "without its end marker"
    zeros = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    assert "zeros" in str(read(path, zeros))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4", "restart_marker_blocks": 3}])
def test_damage_that_pillow_refuses_is_refused_and_what_it_passes_over_gives_its_bits(
    options: dict[str, object], tmp_path: Path
) -> None:
    data, rng = encoded(picture(40, 56), quality=80, **options), np.random.default_rng(0)
    refused = 0
    for _ in range(120):
        bent = np.frombuffer(data, dtype=np.uint8).copy()
        places = rng.integers(0, rng.choice([700, len(bent)]), rng.integers(1, 4))
        bent[places] = rng.integers(0, 256, len(places))
        found, expected = (reader(tmp_path / "bent.jpg", bent.tobytes()) for reader in (read, by_pillow))
        assert same(found, expected), places
        refused += isinstance(found, str)
    assert 10 < refused < 110


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    data = bytearray(encoded(picture(8, 8)))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = (9000).to_bytes(2) * 2
    assert "9000 x 9000 pixels; at most" in str(read(tmp_path / "bomb.jpg", bytes(data)))
