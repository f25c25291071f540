"""The record of a run in its checkpoints: written as it always was, read back, refused by name where it is wrong."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdp.io.errors import CheckpointError
from mdp.io.run.header import read_about
from mdp.io.run.record import Position, RunRecord, record_of
from mdp.label_space import LabelSpace

FIXTURES = Path(__file__).parent / "fixtures"
KEYS = ["kind", "step", "validated", "best", "recipe", "labels", "processes", "threads", "torch", "scaler"]
SITE = LabelSpace(
    name="site", classes=("a", "b"), ignore_index=None, lookup={7: 0, 3: -1}, colors=((1, 2, 3), (4, 5, 6))
)

spaces = st.builds(
    LabelSpace,
    name=st.text(),
    classes=st.lists(st.text(), unique=True, min_size=1).map(tuple),
    ignore_index=st.none() | st.integers(0, 255),
    lookup=st.none() | st.dictionaries(st.integers(0, 65535), st.integers(-1, 0)),
)
records = st.builds(
    RunRecord,
    kind=st.sampled_from(["pretrain", "finetune"]),
    position=st.builds(
        Position, st.integers(0), st.integers(0), st.floats(allow_nan=False, max_value=1e9), st.integers(0)
    ),
    recipe=st.dictionaries(st.text(), st.integers()),
    labels=st.lists(spaces).map(tuple) | st.just((SITE,)),
    processes=st.none() | st.integers(1),
    threads=st.none() | st.integers(1),
    torch=st.none() | st.text(),
    scaler=st.dictionaries(st.text(), st.floats(allow_nan=False)),
)


def about(**changes: Any) -> dict[str, Any]:
    """A record as JSON, changed; None takes a key away."""
    record = RunRecord(kind="finetune", position=Position(3, 2, 0.5), recipe={"run": {}}, labels=(SITE,))
    return {key: value for key, value in {**record.as_json(), **changes}.items() if value is not None}


@given(records)
def test_a_record_is_read_back_as_it_was_written(record: RunRecord) -> None:
    back = record_of(Path("x"), json.loads(json.dumps(record.as_json())))
    best = record.position.best
    assert back == record if math.isfinite(best) else back.position == record.position._replace(best=-math.inf)


def test_the_keys_stand_in_the_file_in_the_order_they_always_had() -> None:
    record = RunRecord(kind="pretrain", position=Position(), recipe={}, labels=())
    assert list(record.as_json()) == KEYS
    assert record.as_json()["best"] is None  # JSON has no infinity
    assert list(record_of(Path("x"), about()).as_json()) == [*KEYS, "last"]


def test_a_file_of_version_1_has_a_record() -> None:
    found = record_of(Path("x"), read_about(FIXTURES / "version_1.safetensors"))
    assert (found.kind, found.position, found.torch, found.last) == ("finetune", Position(3, 2, 0.25), None, None)
    assert found.labels == (LabelSpace(name="site-a", classes=("road", "vehicle")),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": None}, "its kind is None; expected a pretrain or finetune run"),
        ({"kind": ["pretrain"]}, r"its kind is \['pretrain'\]; expected a pretrain or finetune run"),
        ({"kind": "statistics", "step": None}, "its kind is 'statistics'; expected a pretrain or finetune run"),
        ({"step": None}, "expected the key `step` in what it says of its run, found none"),
        ({"step": "3"}, "its step is '3', expected a whole number"),
        ({"step": True}, "its step is True, expected a whole number"),
        ({"validated": -1}, "its validated is -1, expected a whole number"),
        ({"best": "high"}, "its best is 'high', expected a number"),
        ({"recipe": None}, "expected the key `recipe`"),
        ({"recipe": [1]}, r"its recipe is \[1\], expected a table"),
        ({"scaler": 3}, "its scaler is 3, expected a table"),
        ({"torch": 2}, "its torch is 2, expected text"),
        ({"labels": None}, "its label spaces are not as mdp writes them: None"),
        ({"labels": [3]}, r"its label spaces are not as mdp writes them: \[3\]"),
        ({"labels": [{"name": "x"}]}, "its label spaces are not"),
        ({"labels": [{"name": "x", "classes": ["a", "a"]}]}, "its label spaces are not"),
        ({"labels": [{"name": "x", "classes": ["a"], "lookup": {"seven": 0}}]}, "its label spaces are not"),
    ],
)
def test_what_is_not_as_mdp_writes_it_is_told_by_file_and_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=f"^run/last: {words}"):
        record_of(Path("run/last"), about(**changes))
