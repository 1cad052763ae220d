"""Tests of the SVG figures: labels, intervals, missing values, escaping, and any range of values."""

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codots.report.curves import Curve, moving_mean, position_curves, step_curves
from codots.report.svg import BOTTOM, GAP, HEIGHT, RIGHT, TOP, WIDTH, Frame, heights, nudge, short, ticks

SVG = "{http://www.w3.org/2000/svg}"
NAN = math.nan
REFERENCES = {"floor": [0.1, 0.1, 0.1], "bayes": [0.5, 0.9, 0.93], "ceiling": [0.95, 0.95, 0.95]}


def drawn(series, references=REFERENCES, title="a figure"):
    return ET.fromstring(position_curves(series, title=title, references=references))


def over_steps(steps, values, **how):
    return step_curves(steps, [Curve(f"position {j}", line, colour=j) for j, line in enumerate(values)], **how)


def texts(svg):
    return [text.text for text in svg.iter(f"{SVG}text")]


def labels(svg):
    return [text for text in svg.iter(f"{SVG}text") if float(text.get("x")) > RIGHT]


def paths(svg, kind):
    return [path.get("d") for path in svg.iter(f"{SVG}path") if kind in path.get("class").split()]


def numbers(svg):
    """Return every coordinate of a drawing."""
    found = []
    for element in svg.iter():
        for name in ("x", "y", "cx", "cy", "d"):
            found += re.findall(r"-?[\d.]+|nan|inf", element.get(name, ""))
    return [float(number) for number in found]


def test_every_line_has_a_label_with_its_last_value():
    svg = drawn([Curve("before", [0.3, 0.35, 0.4]), Curve("after", [0.5, 0.7, 0.9])])
    assert {label.text for label in labels(svg)} == {
        "0.40 before",
        "0.90 after",
        "0.10 floor",
        "0.93 bayes",
        "0.95 ceiling",
    }


def test_labels_of_close_line_ends_do_not_overlap():
    svg = drawn([Curve(f"arm {i}", [0.2, 0.5, 0.93]) for i in range(5)])
    heights = sorted(float(label.get("y")) for label in labels(svg))
    assert len(heights) == 8
    assert min(b - a for a, b in pairwise(heights)) >= GAP - 0.11
    assert heights[0] - 5 >= TOP
    assert heights[-1] - 5 <= BOTTOM


def test_labels_that_do_not_fit_are_dropped():
    shown = labels(drawn([Curve(f"arm {i}", [0.2, 0.5, 0.9]) for i in range(40)]))
    heights = sorted(float(label.get("y")) for label in shown)
    assert min(b - a for a, b in pairwise(heights)) >= GAP - 0.11
    assert heights[-1] - 5 <= BOTTOM


def test_nudge_keeps_the_order_and_moves_only_close_labels():
    assert nudge([100, 200, 300], TOP, BOTTOM) == [100, 200, 300]
    moved = nudge([201, 200, 100], TOP, BOTTOM)
    assert moved == pytest.approx([200.5 + GAP / 2, 200.5 - GAP / 2, 100])
    assert nudge([], TOP, BOTTOM) == []


def test_an_interval_is_drawn_to_scale():
    svg = drawn([Curve("own", [0.4, 0.5, 0.6], [[0.3, 0.5], [0.25, 0.75], [0.5, 0.7]])])
    frame = Frame((0, 2), (0.0, 0.5, 1.0))
    whiskers = paths(svg, "whisker")
    assert len(whiskers) == 3
    assert f"{frame.y(0.75):.1f}V{frame.y(0.25):.1f}" in whiskers[1]


def test_a_missing_value_breaks_only_its_line():
    svg = drawn([Curve("own", [0.4, NAN, 0.6, 0.7], [[0.3, 0.5], [NAN, NAN], [NAN, NAN], [0.6, 0.8]])], {})
    assert paths(svg, "line")[0].count("M") == 2
    assert len(list(svg.iter(f"{SVG}circle"))) == 3
    assert len(paths(svg, "whisker")) == 2
    assert all(map(math.isfinite, numbers(svg)))


def test_a_long_life_has_bands_and_round_ticks_in_place_of_a_bar_and_a_dot_for_each_task():
    values = [0.5] * 20 + [NAN] + [0.6] * 43
    svg = drawn([Curve("own", values, [[v - 0.1, v + 0.1] for v in values])], {})
    assert len(paths(svg, "band")) == 2  # one on each side of the missing task
    assert not paths(svg, "whisker")
    assert not list(svg.iter(f"{SVG}circle"))
    assert {"0", "10", "60"} <= set(texts(svg))
    assert all(map(math.isfinite, numbers(svg)))


def test_a_line_without_values_has_no_mark_and_no_label():
    svg = drawn([Curve("own", [NAN, NAN], [[NAN, NAN]] * 2)], {})
    assert not paths(svg, "line")
    assert not labels(svg)


@pytest.mark.parametrize(
    ("series", "references"),
    [
        ([], {}),
        ([Curve("own", [0.5], [[0.2, 0.8]])], {"floor": [0.1], "ceiling": [0.9]}),
        ([Curve("own", [0.5], [[-3.0, 4.0]])], {}),
        ([Curve("own", [0.1] * 50)], {"floor": [0.1] * 50}),
    ],
)
def test_all_coordinates_are_inside_the_drawing(series, references):
    for number in numbers(drawn(series, references)):
        assert 0 <= number <= max(WIDTH, HEIGHT)


def test_the_y_axis_shows_0_to_1_and_more_only_if_needed():
    assert {"0.00", "0.25", "0.50", "0.75", "1.00"} <= set(texts(drawn([Curve("own", [0.4, 0.5, 0.6])])))
    assert {"-1.00", "1.00"} <= set(texts(drawn([Curve("own", [-1.0, 0.5])], {})))


@given(st.lists(st.floats(-1e9, 1e9), max_size=5), st.floats(1e-9, 1e6))
def test_y_ticks_are_round_and_span_every_value(values, least_top):
    found = heights([values], least_top)
    size = found[1] - found[0]
    assert found[0] <= min([0.0, *values]) + 1e-5 * size
    assert found[-1] >= max([least_top, *values]) - 1e-5 * size
    assert 3 <= len(found) <= 6
    assert f"{size:.3e}"[:5] in ("1.000", "2.000", "2.500", "5.000")


def test_small_y_ticks_have_enough_digits():
    assert [short(value, 0.1) for value in heights([[0.1]], 0.1)] == ["0", "0.025", "0.05", "0.075", "0.1"]
    assert [short(value, 0.05) for value in (0.00033, 0.00001, 0.0123)] == ["0.0003", "0", "0.012"]
    assert short(0.00033, 0.0004) == "0.00033"


def test_text_is_escaped_and_forbidden_xml_characters_are_dropped():
    name = "</svg><script>alert('1')</script>&\x00\x1b\ud800\"\U0001f9ca"
    svg = drawn([Curve(name, [0.4, 0.5, 0.6])], title=name)
    kept = "</svg><script>alert('1')</script>&\"\U0001f9ca"
    assert f"0.60 {kept}" in texts(svg)
    assert svg.find(f"{SVG}title").text == kept
    assert not list(svg.iter(f"{SVG}script"))


def test_a_figure_has_its_numbers_in_an_accessible_description():
    svg = drawn([Curve("own", [0.4, 0.5, 0.6])], title="Reward")
    title, description = svg.find(f"{SVG}title"), svg.find(f"{SVG}desc")
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
    assert title.text == "Reward"
    assert "own: 0.40, 0.50, 0.60." in description.text
    assert "bayes: 0.50, 0.90, 0.93." in description.text


def test_figures_are_self_contained_and_deterministic():
    series = [Curve("own", [0.4, 0.5, 0.6])]
    text = position_curves(series, title="a", references=REFERENCES)
    assert text == position_curves(series, title="a", references=REFERENCES)
    assert "prefers-color-scheme:dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in text


def test_training_curves_show_raw_values_and_a_moving_mean():
    steps = list(range(1, 61))
    rewards = [[0.3 + 0.005 * t for t in steps], [0.2 + 0.01 * t for t in steps]]
    svg = ET.fromstring(over_steps(steps, rewards, title="training"))
    assert len(paths(svg, "line")) == len(paths(svg, "thin")) == 2
    assert [label.text.split(maxsplit=1)[1] for label in labels(svg)] == ["position 0", "position 1"]
    assert "60" in texts(svg)


@pytest.mark.parametrize(
    ("steps", "rewards"),
    [([], []), ([1], [[0.5]]), ([3], [[0.5], [NAN]]), ([1, 2, 3], [[0.1, NAN, 0.3]]), ([1, 2], [[NAN, NAN]])],
)
def test_training_curves_of_no_few_or_missing_steps(steps, rewards):
    svg = ET.fromstring(over_steps(steps, rewards, title="training"))
    present = sum(any(map(math.isfinite, values)) for values in rewards)
    assert len(labels(svg)) == present
    assert all(map(math.isfinite, numbers(svg)))


def test_a_value_without_neighbours_is_a_dot():
    svg = ET.fromstring(over_steps([1, 2, 3], [[0.1, NAN, 0.3]], title="training"))
    assert len(list(svg.iter(f"{SVG}circle"))) == 2


def test_a_moving_mean_ignores_nan():
    assert moving_mean([1.0, NAN, 3.0, 5.0], 3) == [1.0, 2.0, 4.0, 4.0]
    assert all(map(math.isnan, moving_mean([NAN, NAN], 3)))
    assert moving_mean([], 3) == []


def test_ticks_are_round_and_few():
    assert ticks(1, 60) == [10, 20, 30, 40, 50, 60]
    assert ticks(0, 400) == [0, 100, 200, 300, 400]
    assert ticks(0, 3) == [0, 1, 2, 3]
    assert ticks(7, 7) == [7]
    assert len(ticks(0, 123_456)) <= 7
