"""Label spaces and their union."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.labels import IGNORE, LabelSpace, LabelUnion, UnknownLabels
from tests.laws import pure_call


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20, unique=True), st.integers(0, 2**31 - 1))
def test_every_known_raw_value_maps_to_its_class_and_back(raws: list[int], seed: int) -> None:
    classes = tuple(f"c{i}" for i in range(len(raws)))
    lookup = {raw: label for label, raw in enumerate(raws)}
    space = LabelSpace(name="s", classes=classes, ignore_index=999, lookup=lookup)
    picked = np.random.default_rng(seed).choice([*raws, 999], (5, 7))
    mapped = pure_call(space.to_classes, picked)
    assert all(m == (IGNORE if raw == 999 else lookup[raw]) for raw, m in zip(picked.flat, mapped.flat, strict=True))


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4))
def test_classes_of_different_datasets_never_share_a_number(sizes: list[int]) -> None:
    spaces = [
        LabelSpace(name=f"d{i}", classes=tuple(f"c{c}" for c in range(size)), ignore_index=255 if size < 255 else None)
        for i, size in enumerate(sizes)
    ]
    union = LabelUnion(spaces)
    seen: list[int] = []
    for space in spaces:
        raw = np.arange(len(space.classes))
        ids = pure_call(union.to_union, raw, space.name).tolist()
        part = union.classes_of(space.name)
        assert ids == list(range(part.start, part.stop))
        assert [union.names[i] for i in ids] == [f"{space.name}/{c}" for c in space.classes]
        seen += ids
    assert seen == list(range(union.size))


def test_raw_255_is_ignored_while_union_class_255_is_a_class() -> None:
    spaces = [LabelSpace(name="a", classes=tuple(map(str, range(200)))), LabelSpace(name="b", classes=tuple("xyz"))]
    spaces[1] = LabelSpace(name="b", classes=tuple(map(str, range(100))))
    union = LabelUnion(spaces)
    assert union.to_union(np.array([55, 255]), "b").tolist() == [255, IGNORE]


def test_values_outside_the_label_space_are_refused_with_their_counts() -> None:
    space = LabelSpace(name="s", classes=("a", "b"))
    with pytest.raises(UnknownLabels, match=r"s: 7 \(2 pixels\), 9 \(1 pixels\)") as caught:
        space.to_classes(np.array([[0, 7, 7], [9, 255, 1]]))
    assert caught.value.counts == {7: 2, 9: 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a", "a")}, "given twice: a"),
        ({"lookup": {0: 5}}, "maps to 5"),
        ({"lookup": {70000: 0}}, "raw value 70000"),
        ({"colors": ((0, 0, 0),)}, "1 colors for 2 classes"),
    ],
)
def test_a_label_space_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSpace(**{"name": "s", "classes": ("a", "b"), **changes})  # type: ignore[arg-type]


def test_two_spaces_of_one_name_are_refused() -> None:
    space = LabelSpace(name="s", classes=("a",))
    with pytest.raises(ValueError, match="share a name"):
        LabelUnion([space, space])


def test_union_labels_are_small_integers_that_hold_every_class() -> None:
    space = LabelSpace(name="s", classes=tuple(map(str, range(919))), ignore_index=1000)
    assert space.to_classes(np.array([918, 1000])).tolist() == [918, IGNORE]
    assert LabelUnion([space]).to_union(np.array([918]), "s").dtype == torch.int16
