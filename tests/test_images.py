"""Photos and label maps: true numbers or a clear refusal, never something in between."""

import contextlib
import os
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from mdp.core.labels import IGNORE
from mdp.io.errors import DatasetError, ResourceError
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import overlay, write_labels, write_rgb
from mdp.io.files.label_maps import LabelRule, UnknownColors, read_labels
from mdp.io.files.photos import PhotoRule, read_orientation, read_rgb, upright
from tests.tiffs import tiff
from tests.trees import grey, labels_array, palette, photo

VALUES = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=np.uint8)


def png(values: NDArray[np.integer], depth: int, kind: int = 0) -> bytes:
    """A PNG with exactly this bit depth; kind 0 is grey, 2 is RGB, 3 is palette."""
    height, width = values.shape[:2]
    rows = b""
    for row in values.reshape(height, -1):
        bits = "".join(format(int(value), f"0{depth}b") for value in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    colors = chunk(b"PLTE", bytes(i % 256 for i in range(3 * 2**depth))) if kind == 3 else b""
    body = chunk(b"IHDR", head) + colors + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def refusal(path: Path, reader: object = read_labels) -> str:
    """The message with which a file is refused."""
    with pytest.raises(DatasetError) as caught:
        reader(str(path))  # type: ignore[operator]
    assert str(path) in str(caught.value)
    return str(caught.value)


# Label maps


@pytest.mark.parametrize("kind", [0, 3])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_png_of_any_depth_gives_the_numbers_stored_in_it(tmp_path: Path, depth: int, kind: int) -> None:
    values = np.arange(24).reshape(4, 6) % 2**depth
    path = tmp_path / "labels.png"
    path.write_bytes(png(values, depth, kind))
    assert np.array_equal(read_labels(str(path)), values)


def test_a_16_bit_png_keeps_values_above_255(tmp_path: Path) -> None:
    values = np.array([[0, 256, 300, 65535]], dtype=np.uint16)
    path = grey(tmp_path / "labels.png", values)
    assert read_labels(str(path)).tolist() == values.tolist()


def test_a_palette_file_is_read_as_indices_and_not_as_brightness(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2, 15, 255]], dtype=np.uint8)
    assert read_labels(str(palette(tmp_path / "labels.png", values))).tolist() == values.tolist()


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".pgm", ".png"])
def test_every_lossless_format_gives_back_what_was_written(tmp_path: Path, suffix: str) -> None:
    values = labels_array([0, 1, 7, 200, 255], 0)
    path = grey(tmp_path / f"labels{suffix}", values)
    assert np.array_equal(read_labels(str(path)), values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_coded_file_is_read_through_its_table_whatever_its_alpha(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (3, 1))
    for x, color in enumerate([(128, 0, 0), (0, 0, 0), (0, 0, 128)]):
        image.putpixel((x, 0), (*color, 40 * x)[: len(mode)])
    image.save(tmp_path / "labels.png")
    table = {(128, 0, 0): 1, (0, 0, 128): 300, (0, 0, 0): 65535}
    assert read_labels(str(tmp_path / "labels.png"), table).tolist() == [[1, 65535, 300]]


def test_the_proposal_for_an_rgb_label_map_names_its_colours_the_largest_first(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[0, 0] = (128, 64, 128)
    path = grey(tmp_path / "labels.png", pixels)
    message = refusal(path)
    assert 'classes:\n  0: {name: class_0, colors: ["#000000"]}  # 7 pixels' in message
    assert '\n  1: {name: class_1, colors: ["#804080"]}  # 1 pixels' in message


def test_a_colour_outside_the_table_is_listed_and_the_known_ones_are_not(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[1, 1] = (1, 2, 3)
    path = grey(tmp_path / "labels.png", pixels)
    with pytest.raises(DatasetError, match=r"#010203.*1 pixels") as caught:
        read_labels(str(path), {(0, 0, 0): 0})
    assert "#000000" not in str(caught.value)


def test_a_proposal_stops_at_twelve_colours(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    message = refusal(grey(tmp_path / "labels.png", pixels))
    assert message.count("colors:") == 12
    assert "52 colours more" in message


def test_a_jpeg_label_map_is_refused_as_lossy_whatever_its_name(tmp_path: Path) -> None:
    path = grey(tmp_path / "labels.jpg", VALUES)
    assert "lossy" in refusal(path)
    renamed = path.rename(tmp_path / "labels.png")
    assert "lossy" in refusal(renamed)


def test_a_turned_tiff_is_refused(tmp_path: Path) -> None:
    for values in (VALUES, VALUES.astype(np.int32)):
        assert "orientation" in refusal(tiff(tmp_path / "labels.tif", values, tags={274: (6,)}))


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize(
    "way",
    [{}, {"big": True}, {"order": ">"}, {"tile": 16}, {"deflate": True, "predictor": 2}, {"photometric": 0}],
    ids=str,
)
def test_a_tiff_of_whole_numbers_gives_those_that_were_stored(tmp_path: Path, kind: str, way: dict[str, Any]) -> None:
    values = labels_array([0, 1, 2, 100], 0)
    assert np.array_equal(read_labels(str(tiff(tmp_path / "labels.tif", values.astype(kind), **way))), values)


def test_numbers_that_are_no_raw_values_are_read_where_something_stands_for_them(tmp_path: Path) -> None:
    path = tiff(tmp_path / "labels.tif", np.array([[-1, 0, 70000], [7, -1, 9]], dtype=np.int32))
    message = refusal(path)
    assert "-1 (2 pixels), 70000 (1 pixels)" in message
    assert "ignore: [-1, 70000]" in message
    rule = LabelRule(others=[(-1, -1, 500), (70000, 70000, 501)])
    assert read_labels(str(path), rule=rule).tolist() == [[500, 0, 501], [7, 500, 9]]
    assert "ignore: [-1]" in refusal(path, partial(read_labels, rule=LabelRule(others=[(70000, 70000, 501)])))


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_floats_that_are_no_whole_numbers_are_refused_with_how_many_there_are(tmp_path: Path, value: float) -> None:
    path = tiff(tmp_path / "labels.tif", np.array([[0, value, 1], [2, 2, value]], dtype=np.float32))
    assert f"2 of 6 pixels are no whole number, such as {value:g};" in refusal(path)


@pytest.mark.parametrize("dtype", ["bool", "u1", "i2", ">u4", "f8"])
def test_a_numpy_array_is_read_in_either_order_and_what_is_no_label_map_is_refused(tmp_path: Path, dtype: str) -> None:
    values = (labels_array([0, 1], 0) > 0).astype(dtype)
    for name, array in (("c", values), ("f", np.asfortranarray(values)), ("one", values[None])):
        np.save(tmp_path / f"{name}.npy", array)
        assert np.array_equal(read_labels(str(tmp_path / f"{name}.npy")), values)
    np.save(tmp_path / "cube.npy", np.stack([values, values]))
    assert "(2, 64, 96)" in refusal(tmp_path / "cube.npy")
    np.save(tmp_path / "pickle.npy", np.array([[print]], dtype=object), allow_pickle=True)
    assert "object" in refusal(tmp_path / "pickle.npy")
    data = (tmp_path / "c.npy").read_bytes()
    for cut in (4, 40, 200, len(data) - 1):
        (tmp_path / "cut.npy").write_bytes(data[:cut])
        refusal(tmp_path / "cut.npy")


def test_a_gif_means_the_grey_of_its_palette_and_one_in_colour_needs_a_table(tmp_path: Path) -> None:
    values = np.where(labels_array([0, 1], 0) > 0, np.uint8(255), np.uint8(0))
    Image.fromarray(values).save(tmp_path / "grey.gif")
    assert np.array_equal(read_labels(str(tmp_path / "grey.gif")), values)
    colored = np.zeros((*values.shape, 3), dtype=np.uint8)
    colored[values > 0] = (200, 10, 0)
    Image.fromarray(colored).quantize(2).save(tmp_path / "colored.gif")
    assert 'colors: ["#c80a00"]' in refusal(tmp_path / "colored.gif")
    read = read_labels(str(tmp_path / "colored.gif"), {(200, 10, 0): 7, (0, 0, 0): 3})
    assert np.array_equal(read, np.where(values > 0, 7, 3))


def test_the_colours_of_a_palette_count_where_colours_are_declared_whatever_their_numbers(tmp_path: Path) -> None:
    table, colors = {(0, 0, 0): 60000, (0, 128, 0): 60001, (128, 0, 0): 60002}, [(0, 0, 0), (0, 128, 0), (128, 0, 0)]
    truth = labels_array([0, 1, 2], 0)
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        image = Image.fromarray(np.argsort(order).astype(np.uint8)[truth])
        image.putpalette([channel for number in order for channel in colors[number]])
        image.save(tmp_path / "labels.png")
        assert np.array_equal(read_labels(str(tmp_path / "labels.png"), table), truth.astype(np.uint16) + 60000)
        values_too = LabelRule(colors={(9, 9, 9): 60000}, indices=True)  # other classes are named by value
        assert np.array_equal(read_labels(str(tmp_path / "labels.png"), rule=values_too), np.argsort(order)[truth])
        assert "3 colours are in no class" in refusal(
            tmp_path / "labels.png", partial(read_labels, rule=values_too._replace(indices=False))
        )


def test_a_jpeg_is_read_where_classes_are_ranges_of_values(tmp_path: Path) -> None:
    values = np.where(labels_array([0, 1], 0) > 0, np.uint8(255), np.uint8(0))
    path = grey(tmp_path / "labels.jpg", values)
    assert "values: 128-255" in refusal(path)
    read = partial(read_labels, rule=LabelRule(lossy=True))
    assert np.array_equal(read(str(path)) >= 128, values >= 128)
    Image.fromarray(values).convert("RGB").save(path)
    assert np.array_equal(read(str(path)) >= 128, values >= 128)
    photo(path, 0)
    assert "in colour" in refusal(path, read)


# Edges


def soft(width: int = 60) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Three fields of colour drawn smooth (40, 60, 3), and the class of each pixel before that."""
    colors = np.array([(127, 0, 0), (255, 255, 0), (0, 0, 255)], dtype=np.uint8)
    y, x = np.mgrid[: 40 * 4, : width * 4]
    truth = np.where((y - 80) ** 2 + (x - 2 * width) ** 2 < 60**2, 1, np.where(x > 2.6 * width, 2, 0))
    fine = Image.fromarray(colors[truth])
    return np.array(fine.resize((width, 40), Image.Resampling.BOX)), truth[2::4, 2::4].astype(np.uint8)


def test_colours_between_those_of_classes_are_named_as_edges_and_no_class_is_advised(tmp_path: Path) -> None:
    rgb, truth = soft()
    table = {(127, 0, 0): 0, (255, 255, 0): 1, (0, 0, 255): 2}
    path = grey(tmp_path / "labels.png", rgb)
    declared = (rgb[:, :, None] == np.array(list(table))).all(-1).any(-1)
    with pytest.raises(UnknownColors, match="edges: nearest") as caught:
        read_labels(str(path), table)
    assert "class_" not in str(caught.value)
    assert caught.value.strange.edges[1] == np.count_nonzero(~declared)
    assert f"{np.count_nonzero(~declared) / declared.size:.2%} of the pixels" in str(caught.value)
    ignore = read_labels(str(path), table, LabelRule(edges="ignore", ignored=9))
    assert np.array_equal(ignore, np.where(declared, truth, 9))
    nearest = read_labels(str(path), table, LabelRule(edges="nearest", ignored=9))
    assert np.array_equal(nearest[declared], truth[declared])
    assert np.mean(nearest == truth) > 0.99
    rgb[5:15, 5:15] = (1, 2, 3)  # an area of a colour of its own is a class that was forgotten
    with pytest.raises(UnknownColors) as caught:
        read_labels(str(grey(path, rgb)), table)
    assert str(caught.value).count("class_") == 1
    assert "#010203" in str(caught.value)


# Damage


@given(st.integers(min_value=8, max_value=10**6), st.integers(min_value=0, max_value=7))
def test_no_flipped_bit_of_a_label_map_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "labels.png"
    data = bytearray(palette(path, labels_array([0, 1, 2, 255], 3)).read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(DatasetError):
        read_labels(str(path))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
def test_a_photo_cut_short_anywhere_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    data = photo(tmp_path / f"whole{suffix}", 0).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for part in range(1, 10):
        path.write_bytes(data[: len(data) * part // 10])
        refusal(path, read_rgb)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".gif"])
def test_damaged_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    data = photo(tmp_path / f"whole{suffix}", 0, (32, 48)).read_bytes()
    path = tmp_path / f"bent{suffix}"
    rng = np.random.default_rng(0)
    for _ in range(150):
        bent = np.frombuffer(data, dtype=np.uint8).copy()
        bent[rng.integers(0, min(len(bent), rng.choice([64, len(bent)])), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(bent.tobytes())
        for read in (read_rgb, read_labels, read_orientation):
            with contextlib.suppress(DatasetError):
                read(str(path))


def test_a_photo_whose_end_is_zeros_is_refused(tmp_path: Path) -> None:
    data = photo(tmp_path / "photo.jpg", 0).read_bytes()
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert "zeros" in refusal(path, read_rgb)
    path.write_bytes(data + bytes(512))  # padding after a whole file is harmless
    assert read_rgb(str(path)).shape == (64, 96, 3)


def test_another_librarys_wish_to_load_truncated_images_is_not_heeded(tmp_path: Path) -> None:
    data = photo(tmp_path / "photo.jpg", 0).read_bytes()
    (tmp_path / "photo.jpg").write_bytes(data[: len(data) // 2])
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    assert "truncated" in refusal(tmp_path / "photo.jpg", read_rgb)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b'{"shapes": []}', "a JSON file"),
        (b'\xef\xbb\xbf[{"id": 1}]', "a JSON file"),
        (b"PK\3\4\x14\0\0\0", "a zip archive"),
        (b"%PDF-1.4", "a PDF"),
        (b"\0\0\0\x18ftypheic", "a HEIC or AVIF photo"),
        (b"\x89PNG\n\x1a\n\0\0\0\rIHDR", "line ends were converted"),
        (b"\x89PNG\r\r\n\x1a\r\n\0\0\0\rIHDR", "line ends were converted"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(content)
    assert says in refusal(path)
    assert says in refusal(path, read_rgb)


def test_a_missing_file_a_folder_and_a_pipe_are_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "missing" in refusal(tmp_path / "none.png")
    assert "folder" in refusal(tmp_path)
    assert "pipe" in refusal(tmp_path / "pipe.png")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    assert "9000 x 9000" in refusal(path, read_rgb)
    path.write_bytes(
        path.read_bytes().replace(head, chunk(b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0)))
    )
    refusal(path, read_rgb)


# Photos


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "1"])
def test_a_photo_of_any_mode_becomes_three_channels_of_uint8(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    rgb = read_rgb(str(path))
    assert rgb.shape == (4, 5, 3)
    assert rgb.dtype == np.uint8
    assert rgb.min() == 255


def test_transparency_is_dropped_and_not_blended(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "photo.png")
    assert read_rgb(str(tmp_path / "photo.png"))[0, 0].tolist() == [10, 20, 30]


def test_a_transparent_palette_gives_its_colours_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([9, 8, 7, 6, 5, 4])
    image.save(tmp_path / "photo.png", transparency=b"\x00\x80")
    assert read_rgb(str(tmp_path / "photo.png")).tolist() == [[[9, 8, 7], [6, 5, 4]]]
    assert read_labels(str(tmp_path / "photo.png")).tolist() == [[0, 1]]


def test_a_16_bit_grey_photo_is_refused_since_its_white_is_unknown(tmp_path: Path) -> None:
    path = grey(tmp_path / "photo.png", np.array([[0, 4095]], dtype=np.uint16))
    assert "values 0..4095" in refusal(path, read_rgb)


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("way", [{}, {"order": ">"}, {"planes": True}, {"tile": 16, "deflate": True}], ids=str)
def test_many_bands_of_many_bits_are_refused_with_their_range_and_read_by_a_rule(
    tmp_path: Path, kind: str, way: dict[str, Any]
) -> None:
    values = np.random.default_rng(0).integers(12, 2988, (20, 30, 5)).astype(kind)
    values[0, 0], values[0, 1] = 12, 2987
    path = tiff(tmp_path / "photo.tif", values, **way)
    message = refusal(path, read_rgb)
    assert "5 bands" in message
    assert "image: {range: [12, 2987], bands: [3, 2, 1]}" in message
    rgb = read_rgb(str(path), PhotoRule((0, 2000), (4, 2, 1)))
    wanted = np.rint(np.clip(values[..., [3, 1, 0]].astype(float), 0, 2000) / 2000 * 255)
    assert np.array_equal(rgb, wanted)
    assert rgb.dtype == np.uint8
    assert "5 bands, where image.bands names [7, 2, 1]" in refusal(
        path, partial(read_rgb, rule=PhotoRule((0, 2000), (7, 2, 1)))
    )


def test_bands_of_8_bits_need_no_range_and_rgb_of_16_bits_no_bands(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 8), dtype=np.uint8)
    path = tiff(tmp_path / "bands.tif", values)
    assert "`image: {bands: [3, 2, 1]}`" in refusal(path, read_rgb)
    assert np.array_equal(read_rgb(str(path), PhotoRule(bands=(8, 1, 2))), values[..., [7, 0, 1]])
    assert np.array_equal(read_rgb(str(path), PhotoRule(bands=(5,))), values[..., [4, 4, 4]])
    deep = (values[..., :3].astype(np.uint16) * 10).copy()
    for planes in (False, True):
        path = tiff(tmp_path / "deep.tif", deep, planes=planes)
        assert f"`image: {{range: [{deep.min()}, {deep.max()}]}}`" in refusal(path, read_rgb)
        assert np.array_equal(read_rgb(str(path), PhotoRule((0, 2550))), values[..., :3])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_keeps_all_of_them_until_its_range_is_applied(tmp_path: Path, channels: int) -> None:
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    values = np.random.default_rng(0).integers(0, 3001, (6, 7, channels))
    path = tmp_path / "photo.png"
    path.write_bytes(png(values, 16, kind))
    if channels == 2:
        assert "without transparency" in refusal(path, read_rgb)
        return
    own = values[..., : 1 if channels == 1 else 3]
    assert f"values {values.min()}..{values.max()}" in refusal(path, read_rgb)
    wanted = np.broadcast_to(np.rint(own / 3000 * 255), (6, 7, 3))
    assert np.array_equal(read_rgb(str(path), PhotoRule((0, 3000))), wanted)


def test_what_is_no_number_is_black_and_a_range_for_8_bits_lies_within_them(tmp_path: Path) -> None:
    values = np.array([[[0.0, 0.5, np.nan], [1.0, -1.0, np.inf]]], dtype=np.float32)
    path = tiff(tmp_path / "photo.tif", values)
    assert "range: [-1, 1]" in refusal(path, read_rgb)
    assert read_rgb(str(path), PhotoRule((0, 1))).tolist() == [[[0, 128, 0], [255, 0, 255]]]
    plain = grey(tmp_path / "photo.png", np.array([[0, 50, 100]], dtype=np.uint8))
    assert read_rgb(str(plain), PhotoRule((0, 100)))[0, :, 0].tolist() == [0, 128, 255]
    assert "8 bits" in refusal(plain, partial(read_rgb, rule=PhotoRule((0, 3000))))


def test_exif_orientation_is_reported_and_never_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(str(tmp_path / "turned.jpg")).shape == (4, 6, 3)
    assert read_orientation(str(tmp_path / "turned.jpg")) == 6
    assert read_orientation(str(photo(tmp_path / "upright.jpg", 0))) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_on_request_as_pillow_turns_it(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    wanted = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "a.png", formats=("PNG",))))
    assert np.array_equal(read_rgb(str(tmp_path / "a.png"), PhotoRule(exif="photo")), wanted)
    assert np.array_equal(upright(rgb[..., 0], orientation), wanted[..., 0])
    assert np.array_equal(read_rgb(str(tmp_path / "a.png")), rgb)


def test_the_largest_image_is_a_setting_that_the_refusal_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = grey(tmp_path / "a.png", np.zeros((40, 50), dtype=np.uint8))
    tiff(tmp_path / "a.tif", np.zeros((40, 50), dtype=np.float32))
    monkeypatch.setenv("MDP_MAX_PIXELS", "1999")
    for read, file in ((read_rgb, path), (read_labels, path), (read_labels, tmp_path / "a.tif")):
        assert "50 x 40 pixels; at most 1999 are read" in refusal(file, read)
        assert "MDP_MAX_PIXELS=2000" in refusal(file, read)
    monkeypatch.setenv("MDP_MAX_PIXELS", "2000")
    assert read_labels(str(path)).shape == read_labels(str(tmp_path / "a.tif")).shape == (40, 50)
    monkeypatch.setenv("MDP_MAX_PIXELS", "many")
    with pytest.raises(ResourceError, match="expected a number of pixels"):
        read_rgb(str(path))


# Writing


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 254, 255, 256, 342])
def test_what_is_written_is_read_back_and_ignored_pixels_stay_no_class(tmp_path: Path, count: int) -> None:
    classes = (np.arange(4 * 128).reshape(4, 128) % (count + 1)) - 1
    path = tmp_path / "classes.png"
    write_labels(path, classes, voc_colormap(256)[: min(count, 256)] + ((1, 2, 3),) * max(count - 256, 0))
    raw = read_labels(str(path))
    ignored = 255 if count <= 255 else 65535
    assert np.array_equal(raw, np.where(classes == IGNORE, ignored, classes))


def test_a_photo_written_and_read_is_the_same(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_rgb(tmp_path / "photo.png", rgb)
    assert np.array_equal(read_rgb(str(tmp_path / "photo.png")), rgb)


def test_an_overlay_tints_labelled_pixels_only() -> None:
    rgb = np.full((1, 2, 3), 100, dtype=np.uint8)
    tinted = overlay(rgb, np.array([[0, IGNORE]]), ((200, 0, 50),))
    assert tinted.tolist() == [[[150, 50, 75], [100, 100, 100]]]


def test_the_colormap_is_vocs() -> None:
    colors = voc_colormap(256)
    assert colors[15] == (192, 128, 128)
    assert colors[20] == (0, 64, 128)
    assert colors[255] == (224, 224, 192)
    assert len(set(colors)) == 256
