"""MATLAB 5 files, against SciPy where it is there, against the real ones, and against damage."""

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdp.io.errors import DatasetError
from mdp.io.files.label_maps import read_labels
from mdp.io.files.matlab import read_label_mat, read_mat
from tests.trees import labels_array, sbd_mat


def scipy_io() -> Any:
    return pytest.importorskip("scipy.io")


@pytest.mark.parametrize("compressed", [True, False])
def test_sbds_segmentation_is_read_from_its_struct(tmp_path: Path, compressed: bool) -> None:
    values = labels_array([0, 3, 20], 0)
    path = sbd_mat(tmp_path / "a.mat", values, compressed)
    assert np.array_equal(read_label_mat(str(path)), values)
    assert np.array_equal(read_labels(str(path)), values)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64", "bool"])
def test_matrices_of_every_number_type_are_read_as_scipy_wrote_them(
    tmp_path: Path, kind: str, compressed: bool
) -> None:
    values = np.random.default_rng(0).integers(0, 2 if kind == "bool" else 100, (5, 7)).astype(kind)
    scipy_io().savemat(tmp_path / "a.mat", {"groundtruth": values}, do_compression=compressed)
    assert np.array_equal(read_label_mat(str(tmp_path / "a.mat")), values)


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.booleans())
def test_any_shape_comes_back_in_matlabs_order(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], compressed: bool
) -> None:
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    values = np.arange(np.prod(shape)).reshape(shape).astype(np.int32)
    scipy_io().savemat(path, {"x": values, "second": values + 1}, do_compression=compressed)
    found = read_mat(str(path))
    assert np.array_equal(found["x"], values)
    assert np.array_equal(found["second"], values + 1)


def test_structs_cells_text_and_sparse_matrices_do_not_hide_the_labels(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    values = labels_array([0, 1, 20], 1)
    cells = np.empty((20, 1), dtype=object)
    for i in range(20):
        cells[i, 0] = sparse.csc_matrix((4, 4))
    fields = {"Boundaries": cells, "Segmentation": values, "CategoriesPresent": [1, 20], "note": "text"}
    scipy_io().savemat(tmp_path / "a.mat", {"GTcls": fields}, do_compression=True)
    assert np.array_equal(read_label_mat(str(tmp_path / "a.mat")), values)


def test_several_matrices_are_refused_by_name_since_one_may_be_no_label_map(tmp_path: Path) -> None:
    both = {"newseg": np.ones((3, 4)), "newlabels": np.ones((2, 2))}
    scipy_io().savemat(tmp_path / "a.mat", both)
    with pytest.raises(DatasetError, match="newseg, newlabels"):
        read_label_mat(str(tmp_path / "a.mat"))


@pytest.mark.parametrize("values", [[[0.5, 1.0], [1.0, 2.0]], [[-1.0, 1.0], [1.0, 2.0]], [[1.0, np.nan], [1.0, 2.0]]])
def test_numbers_that_are_no_labels_are_refused(tmp_path: Path, values: list[list[float]]) -> None:
    scipy_io().savemat(tmp_path / "a.mat", {"x": np.array(values)})
    with pytest.raises(DatasetError, match="not labels"):
        read_label_mat(str(tmp_path / "a.mat"))


def test_a_file_of_matlab_7_3_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(DatasetError, match="-v7"):
        read_mat(str(tmp_path / "a.mat"))


@pytest.mark.parametrize("content", [b"", b"MATLAB", b"GIF89a", b"MATLAB 5.0".ljust(124) + b"\x00\x01XX"])
def test_what_is_no_mat_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.mat"):
        read_label_mat(str(path))


@pytest.mark.parametrize("compressed", [True, False])
def test_a_mat_file_cut_anywhere_is_refused(tmp_path: Path, compressed: bool) -> None:
    path = sbd_mat(tmp_path / "a.mat", labels_array([0, 3, 20], 0), compressed)
    data = path.read_bytes()
    for length in [*range(0, len(data) - 1, max(1, len(data) // 60)), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(DatasetError):
            read_label_mat(str(path))


def test_damaged_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    rng = np.random.default_rng(0)
    for compressed in (True, False):
        data = sbd_mat(path, labels_array([0, 3], 0), compressed).read_bytes()
        for _ in range(400):
            bent = np.frombuffer(data, dtype=np.uint8).copy()
            places = rng.integers(100, min(len(bent), 500), 3)
            bent[places] = rng.choice([0, 1, 255, int(rng.integers(256))], 3)
            path.write_bytes(bent.tobytes())
            with contextlib.suppress(DatasetError):
                read_label_mat(str(path))


def test_no_flipped_bit_of_a_compressed_file_changes_a_label_unseen(tmp_path: Path) -> None:
    values = labels_array([0, 3, 20], 0)
    path = sbd_mat(tmp_path / "a.mat", values)
    data = path.read_bytes()
    for place in range(136, len(data)):
        bent = bytearray(data)
        bent[place] ^= 1 << (place % 8)
        path.write_bytes(bent)
        with contextlib.suppress(DatasetError):
            assert np.array_equal(read_label_mat(str(path)), values)


def test_matrices_within_matrices_without_end_are_refused(tmp_path: Path) -> None:
    head = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1) + struct.pack("<II", 1, 0)
    nested = b""
    for _ in range(2000):
        nested = struct.pack("<II", 14, len(head) + len(nested)) + head + nested
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + nested)
    with pytest.raises(DatasetError, match="deep"):
        read_mat(str(path))


def test_the_real_files_are_read_as_scipy_reads_them(real_data: Path) -> None:
    loadmat = scipy_io().loadmat
    clothing = sorted((real_data / "clothing-co-parsing" / "annotations" / "pixel-level").glob("*.mat"))[::50]
    msrc = sorted((real_data / "MSRC_v2" / "newsegmentations_mats").glob("*.mat"))[::60]
    assert len(clothing) == 10
    assert len(msrc) == 10
    for path in clothing + msrc:
        ours, theirs = read_mat(str(path)), loadmat(path)
        for name, values in ours.items():
            assert np.array_equal(values, theirs[name])
        assert {name for name in theirs if not name.startswith("__")} == set(ours)


def test_the_real_clothing_maps_equal_their_png_copies(real_data: Path) -> None:
    folder = real_data / "clothing-co-parsing" / "annotations"
    for path in sorted((folder / "pixel-level").glob("*.mat"))[::50]:
        copy = folder / "pixel-level-png" / f"{path.stem}.png"
        assert np.array_equal(read_labels(str(path)), read_labels(str(copy)))
