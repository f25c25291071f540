"""The YAML reader: what people mean is read, what they did not mean is an error with a line."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mdp.io.errors import RecipeError
from mdp.io.files import strict_yaml
from mdp.io.files.strict_yaml import dump_yaml, load_yaml, parse_yaml
from tests.conftest import ROOT

WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))


@given(st.dictionaries(WORDS, TREES, max_size=4))
@example({"0E0": None, "name": "1e5"})
def test_whatever_yaml_writes_is_read_back(values: dict[str, Any]) -> None:
    written = dump_yaml(values)
    if "&id" not in written:  # PyYAML abbreviates repeated values
        assert parse_yaml(written, "test") == values


PIECES = [
    "a", "b c", "key: ", "x: 1\n", "- ", "\n", "\n  ", "\n    ", "\n- ", "[", "]", "{", "}", ", ", ": ", ":", " # c\n",
    "'it''s'", '"y z"', "'", '"', "1e-4", "1e999", "12:30", "true", "~", "-", "--- ", "...", "[1, 2]", "{a: 1}",
    "*a", "`", "@", "k:v", "/p/q.x",
]  # fmt: skip
both_parsers = pytest.mark.skipif(strict_yaml._FastLoader is None, reason="PyYAML was built without libyaml")


@both_parsers
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_what_libyaml_reads_pyyaml_reads_to_the_same(text: str) -> None:
    assert strict_yaml._AGREED.fullmatch(text)
    try:
        read = yaml.load(text, strict_yaml._FastLoader)
    except (yaml.YAMLError, ValueError):  # which the other is asked about
        return
    assert repr(read) == repr(yaml.load(text, strict_yaml._Loader))


@both_parsers
def test_a_recipe_is_read_by_libyaml_and_to_the_same() -> None:
    text = (ROOT / "examples" / "recipes" / "tiny.yaml").read_text()
    assert strict_yaml._AGREED.fullmatch(text)
    assert yaml.load(text, strict_yaml._FastLoader) == yaml.load(text, strict_yaml._Loader)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e5", 1e5),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("12", 12),
        ("-7", -7),
        ("true", True),
        ("False", False),
        ("null", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("12:30:45", "12:30:45"),
        ("2026-11-20", "2026-11-20"),
        ('"1e5"', "1e5"),
        ("[1, 2e0]", [1, 2.0]),
    ],
)
def test_a_plain_word_means_what_it_looks_like(text: str, value: Any) -> None:
    found = parse_yaml(f"key: {text}", "test")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3", 3, "'a' is given twice"),
        ("a:\n  b: {c: 1, c: 2}", 2, "'c' is given twice"),
        ("a: 1\nb: [1, 2", 2, "expected ','"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("a: &x 1\nb: *x", 2, "aliases"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tags"),
        ("a: 1\nb: !new 2", 2, "tags"),
        ("a:\n\t- 1", 2, r"\\t"),
        ("? [1, 2]\n: 3", 1, "a key must be"),
        (f"a: 1\n? {'k' * 201}\n: 3", 2, "a key must be"),
        ('a: 1\n"\\e[31m": 2', 2, r"control characters in .*x1b"),
        ('a: 1\n"b\\nc": 2', 2, "a key must be"),
        ('a: 1\nb: "\\e]0;title\\a"', 2, "control characters"),
        ('a: "\\x9b2J"', 1, "control characters"),
        ('a: "\\u202E"', 1, "control characters"),
        ('a: "\\uD800"', 1, "control characters"),
        ("a: 1e999", 1, "too large a number"),
    ],
)
def test_what_people_did_not_mean_is_an_error_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(RecipeError, match=rf"^here\.yaml: not valid YAML: line {line}: .*{says}"):
        parse_yaml(text, "here.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 2000,
        "a: " + "{a: " * 2000,
        "\n".join(" " * i + "a:" for i in range(2000)),
        "a: [" + "1," * 500_000 + "]",
        "\n".join(f"k{i}: {i}" for i in range(80_000)),
        "a: " + "1" * 900_000,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "a: &a {b: 1}\nc: {<<: *a}",
        "? " * 500_000,
        "- " * 500_000,
        "%FOO bar\n" * 100_000,
        "a: \x00",
        "a: \ud800",
        '"',
    ],
)
def test_a_bomb_is_refused_within_a_second_or_two(text: str) -> None:
    start = time.process_time()
    with pytest.raises(RecipeError, match=r"^bomb\.yaml: not valid YAML") as caught:
        parse_yaml(text, "bomb.yaml")
    assert time.process_time() - start < 2  # 0.8 s at most where it was measured
    assert len(str(caught.value)) < 500


def test_text_may_have_lines_and_infinity_may_be_meant() -> None:
    assert parse_yaml("a: |\n  one\n  two\tb\nb: -.inf", "test") == {"a": "one\ntwo\tb\n", "b": float("-inf")}


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        assert isinstance(parse_yaml(text, "any"), dict)
    except RecipeError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most texts are fine


@pytest.mark.parametrize("text", ["- a", "word", "3"])
def test_a_document_must_be_a_mapping(text: str) -> None:
    with pytest.raises(RecipeError, match="key: value"):
        parse_yaml(text, "test")


def test_an_empty_file_is_an_empty_mapping_and_a_byte_order_mark_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"")
    assert load_yaml(path) == {}
    path.write_bytes(b"\xef\xbb\xbfkey: 1\r\nother: 2\r\n")
    assert load_yaml(path) == {"key": 1, "other": 2}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(RecipeError, match=r"a\.yaml"):
        load_yaml(path)
    path.write_bytes("key: é".encode("utf-16"))
    with pytest.raises(RecipeError, match=r"a\.yaml: not UTF-8"):
        load_yaml(path)
    path.write_bytes(b"a: " + b"x" * 2**20)
    with pytest.raises(RecipeError, match="at most"):
        load_yaml(path)
    with pytest.raises(RecipeError, match="folder"):
        load_yaml(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(RecipeError, match="pipe"):
        load_yaml(tmp_path / "pipe.yaml")
