"""YAML is read as YAML 1.2, and every value knows its line."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neobert.config import ConfigError, dump_yaml, parse_value, parse_yaml, read_yaml, set_at


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("-.5", -0.5), ("1.", 1.0), ("3", 3), ("-3", -3), ("010", 10), ("0x1f", 31),
        ("0o17", 15), ("true", True), ("False", False), ("no", "no"), ("on", "on"), ("yes", "yes"), ("null", None),
        ("~", None), ("", None), ("01:30:00", "01:30:00"), ("2026-01-31", "2026-01-31"), ("1_000", "1_000"),
        (".inf", float("inf")), ("-.inf", float("-inf")), ("'3'", "3"), ("[1, 2e0]", [1, 2.0]), ("{a: 1}", {"a": 1}),
        ("1.10.2", "1.10.2"), ("e5", "e5"), ("+", "+"), (".", "."), ("0x", "0x"), ("nan", "nan"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_every_value_knows_its_line() -> None:
    source = parse_yaml("a: 1\nb:\n  c:\n    - 1\n    - {d: 2}\n", "f.yaml")
    assert source.where(("a",)) == "f.yaml:1"
    assert source.where(("b", "c", 1, "d")) == "f.yaml:5"
    assert source.where(("b", "x", "y")) == "f.yaml:2", "an unknown key is shown where its mapping stands"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "f.yaml:2: is not valid YAML: the key 'a' stands here twice"),
        ("a: [1\nb: 2\n", "f.yaml:2"),
        ("a:\n\t- 1\n", "f.yaml:2"),
        ("? [1, 2]\n: 3\n", "f.yaml:1: is not valid YAML: a key must be a word"),
        ("a: !!python/object/apply:os.system [true]\n", "f.yaml:1"),
        ("a: 1\nb: x\x85y", r'f.yaml:2: holds the character U+0085; write it as "\x85"'),
        ("&a [*a]", "contains itself"),
    ],
)
def test_what_is_no_yaml_is_an_error_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    assert message in str(caught.value)


def test_an_unreadable_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "nothing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


def test_merge_keys_and_anchors_work() -> None:
    source = parse_yaml("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n", "f")
    assert source.data["more"] == {"x": 1, "y": 3}


GROWING = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefghijkl")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GROWING, "more than 200,000 values"),
        (GROWING.replace("[*", "{<<: [*").replace("]\n", "]}\n").replace("[1", "{x: [1"), "more than 200,000 values"),
        ("a: " + "[" * 40_000 + "]" * 40_000, "nested deeper than 64"),
        ("a:\n" + "- " * 40_000 + "x", "nested deeper than 64"),
        ("\n".join("  " * depth + "a:" for depth in range(1000)), "nested deeper than 64"),
        ("a: !!binary aGVsbG8=", "the tag !!binary is not read here"),
        ("a: !!timestamp 2026-01-31", "the tag !!timestamp is not read here"),
        ("a: !!set {x}", "the tag !!set is not read here"),
        ("a: !!python/object/apply:os.system [ls]", "the tag !!python/object/apply:os.system is not read here"),
        ("a: !mine x", "the tag !mine is not read here"),
        ("a: 1" + "0" * 400, "a number of 401 digits"),
        ("a: 0x" + "f" * 1_000_000, "a number of 1000002 digits"),
    ],
)  # fmt: skip
def test_text_that_would_take_too_much_to_read_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"f\.yaml:\d+: is not valid YAML: {re.escape(message)}"):
        parse_yaml(text, "f.yaml")


def test_core_tags_are_read() -> None:
    text = 'a: !!str 1\nb: !!int "2"\nc: !!float 3\nd: !!map {}\ne: !!seq []\n'
    assert parse_yaml(text, "f").data == {"a": "1", "b": 2, "c": 3.0, "d": {}, "e": []}


def test_a_file_that_is_no_settings_file_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "disk.yaml").open("wb") as stream:
        stream.truncate(10 << 30)
    with pytest.raises(ConfigError, match="is larger than 5 MB"):
        read_yaml(tmp_path / "disk.yaml")


def test_set_at_makes_the_mappings_on_the_way_and_refuses_to_go_through_a_value() -> None:
    data: dict[str, Any] = {"a": {"b": 1}}
    set_at(data, ("a", "c", "d"), 2)
    assert data == {"a": {"b": 1, "c": {"d": 2}}}
    with pytest.raises(ConfigError, match=r"a\.b: is 1, so nothing can be set inside it"):
        set_at(data, ("a", "b", "c"), 2)


scalars = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.sampled_from(["1e5", "0E0", "no", "on", "010", "1:30", "<<", "~", "", "2026-01-31", "0o7", ".5", "null", "="]),
    st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(),
)  # fmt: skip


@given(st.dictionaries(st.text("abc", min_size=1), st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=4))
def test_what_is_written_is_read_back_with_its_types(data: dict[str, Any]) -> None:
    again = parse_yaml(dump_yaml(data), "f.yaml").data
    assert repr(again) == repr(data), "with their types: 1, 1.0 and True are equal"
