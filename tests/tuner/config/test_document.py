"""YAML as people write it: what is read, what is refused, and the line that the refusal names."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.config.document import MAX_BYTES, MAX_DEPTH, parse, parse_value, plain_scalar, read_document
from tuner.contract import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5e-3", 5e-4),
        ("3.", 3.0),
        ("+7", 7),
        ("010", 10),
        ("0x10", 16),
        ("0o17", 15),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("2026-11-22", "2026-11-22"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("e5", "e5"),
        (".", "."),
        ("1e-5x", "1e-5x"),
        ("all-linear", "all-linear"),
        ("9" * 5000, float("9" * 5000)),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    read = plain_scalar(text)
    assert read == value
    assert type(read) is type(value)


def test_quoted_scalars_stay_text() -> None:
    assert parse('a: "true"\nb: \'1e-5\'\nc: "null"', "f")[0] == {"a": "true", "b": "1e-5", "c": "null"}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives(value: float) -> None:
    assert plain_scalar(repr(value)) == value


def test_lines_of_keys() -> None:
    data, lines = parse("a:\n  b: 1\n\n  c:\n    - x\n    - {d: 2}\n", "f")
    assert data == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
    }


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "f", "empty"),
        ("# only a comment\n", "f", "empty"),
        ("- 1\n- 2\n", "f", "a list"),
        ("just words", "f", "text"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "f:5", "`b.c` is written twice, on lines 3 and 5"),
        ("a: &x [1]\nb: *x\n", "f:2", "alias `*x`"),
        ("a: !!python/object/apply:os.system [ls]\n", "f:1", "tag"),
        ("a: !!int '3'\n", "f:1", "tag"),
        ("a: 1\n---\nb: 2\n", "f:2", "second document"),
        ("a:\n\t- 1\n", "f:2", "a tab"),
        ("a: [1, 2\nb: 3\n", "f:2", "not valid YAML"),
        ("a: {b: 1\n", "f:2", "not valid YAML"),
        ("1: x\n", "f:1", "the key `1` is not text"),
        ("? [a, b]\n: x\n", "f:1", "not text"),
        ("a: b\x07\n", "f:1", "control character"),
        ("a: 1\nb: x\x00y\n", "f:2", "control character"),
        ("a: " + "[" * 50 + "]" * 50, "f:1", "nested too deeply"),
    ],
)
def test_refused(text: str, where: str, what: str) -> None:
    with pytest.raises(InputError) as refused:
        parse(text, "f")
    assert refused.value.where == where
    assert what in refused.value.what


def test_alias_bomb_is_refused_at_its_first_alias() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True))
    with pytest.raises(InputError, match="alias"):
        parse(bomb, "f")


def test_depth_just_allowed() -> None:
    parse("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1), "f")


def test_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="is this perhaps the data"):
        read_document(path)


def test_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(InputError, match="does not end"):
        read_document(Path("/dev/zero"))


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("a: 1\nb: caf\xe9\n".encode("latin-1"))
    with pytest.raises(InputError) as refused:
        read_document(path, "latin.yaml")
    assert refused.value.where == "latin.yaml:2"
    assert "0xe9" in refused.value.what


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    document = read_document(path)
    assert document.data == {"a": 1, "b": 2}
    assert document.where(("b",)).endswith(":2")


def test_where_falls_back_to_the_nearest_key_above(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: 1\ntrain:\n  lora_r: 8\n")
    document = read_document(path, "a.yaml")
    assert document.where(("train", "nothing")) == "a.yaml:2"
    assert document.where(("nothing",)) == "a.yaml"
    assert pickle.loads(pickle.dumps(document)) == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("many", "many"),
        ("", None),
        ("a: b", "a: b"),
        ("x # y", "x # y"),
        ("[8, 16]", [8, 16]),
        ("{kind: nf4}", {"kind": "nf4"}),
        ('"true"', "true"),
    ],
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text, "--set") == value


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        data, _ = parse(text, "f")
    except InputError:
        return
    assert isinstance(data, dict)
