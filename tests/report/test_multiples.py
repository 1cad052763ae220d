"""Small multiples have one y axis and one legend, and each panel says what it shows."""

import re
import xml.etree.ElementTree as ET

from codots.report.curves import Curve
from codots.report.multiples import Panel, small_multiples
from tests.report.test_curves import SVG, paths, texts

PANELS = [
    Panel("lake", "frozen-lake-v1 easy, 3 tasks", range(3), [Curve("null", [0.2] * 3, colour=5)], {"floor": [0.1] * 3}),
    Panel("pde", "pde-discovery-v1 easy, 2 tasks", range(2), [Curve("own", [1.0, 3.0]), Curve("null", [1.0, 1.0])], {}),
]


def panels():
    return [ET.fromstring(figure.svg) for figure in small_multiples("Reward", PANELS, "position").panels]


def test_panels_share_the_y_axis_and_not_the_positions():
    lake, pde = panels()
    assert {"0.00", "1.00", "2.00", "3.00"} <= set(texts(lake)) & set(texts(pde))
    assert paths(lake, "grid") == paths(pde, "grid")
    assert ("2" in texts(lake), "2" in texts(pde)) == (True, False)


def test_the_legend_has_each_line_once_in_its_colour():
    legend = small_multiples("Reward", PANELS, "position").legend
    assert [key.name for key in legend] == ["own", "null", "floor"]
    assert [re.search('path class="(.*?)"', key.svg)[1] for key in legend] == ["line c0", "line c0", "ref floor"]


def test_a_panel_shows_its_name_and_describes_itself_in_full():
    for svg, panel in zip(panels(), PANELS, strict=True):
        assert {panel.name, panel.about} <= set(texts(svg))
        assert svg.find(f"{SVG}title").text == f"{panel.name}: Reward"
        assert f"{panel.curves[-1].name}: " in svg.find(f"{SVG}desc").text


def test_a_panel_of_one_position_or_of_missing_values_is_drawn():
    one = Panel("one", "", [0], [Curve("own", [0.5], [[0.2, 0.8]])], {"floor": [0.1]})
    gone = Panel("gone", "", [0, 1], [Curve("own", [float("nan")] * 2, [[float("nan")] * 2] * 2)], {})
    first, second = small_multiples("Reward", [one, gone], "position").panels
    assert len(paths(ET.fromstring(first.svg), "whisker")) == 1
    assert "nan" not in second.svg
