"""YAML is read as version 1.2 says, a repeated key is refused, and what is written reads back the same."""

import math

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from codots.core.yaml_text import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 1e-3), ("7e-1", 0.7), ("1E5", 1e5), ("+1.5e+3", 1500.0), (".5", 0.5), ("1.", 1.0), ("-.5e1", -5.0)),
        *(("010", 10), ("-7", -7), ("+7", 7), ("0o17", 15), ("0x1F", 31), ("-.inf", -math.inf), (".INF", math.inf)),
        *(("true", True), ("FALSE", False), ("~", None), ("Null", None), ("", None)),
        *((word, word) for word in ("yes", "no", "On", "off", "y", "1_000", "1:30", "2024-01-01", "0b11", "1e", "e5")),
        *((word, word) for word in ("0o8", "0xG", ".", "--", "1.5.2", "tRue", "=", "nan", "inf", "+.nan", "-0x1")),
        *(("'7e-1'", "7e-1"), ("!!str 7", "7"), ("!!float 7", 7.0), ("!!int '010'", 10)),
        ("{a: &x {b: 1, c: 2}, d: {<<: *x, c: 3}}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("{a: {y: &x {<<: &z {k: 1}, k: 2}}, c: {<<: *x, k: 3}}", {"a": {"y": {"k": 2}}, "c": {"k": 3}}),
    ],
)
def test_values_are_those_of_yaml_1_2(text, value):
    found = read_yaml(text)
    assert (found, type(found)) == (value, type(value))


def test_not_a_number_is_read():
    assert math.isnan(read_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key 'a' is given twice, in lines 1 and 3"),
        ("a:\n  lr: 1\n  'lr': 2\n", "the key 'lr' is given twice, in lines 2 and 3"),
        ('- {a: 1}\n- {a: 1, b: 2, "a": 1}', "the key 'a' is given twice, in line 2"),
        ("{1: a, 0x1: b}", "the key 1 is given twice, in line 1"),
        ("{<<: {a: 1}, <<: {a: 2}}", "the key '<<' is given twice, in line 1"),
        ("? a\n: 1\n? a\n: 1", "the key 'a' is given twice, in lines 1 and 3"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_lines(text, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        read_yaml(text)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
PLAIN |= st.from_regex(r"[-+.0-9eExo_:a-f]{1,6}", fullmatch=True)


@example("1e-3")
@example(["0o17", "010", "yes", "1:30", "2024-01-01", "<<", 1e-5, 1e300])
@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner), max_leaves=6))
def test_what_is_written_reads_back_the_same_and_as_yaml_1_1(values):
    assert read_yaml(write_yaml(values)) == values
    assert yaml.safe_load(write_yaml(values)) == values


def test_keys_are_written_in_their_order():
    assert write_yaml({"b": 1e-5, "a": "1e-5"}) == "b: 1.0e-05\na: '1e-5'\n"
