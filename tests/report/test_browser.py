"""Tests of the page in Chromium at two widths, without console messages."""

import threading

import pytest

from codots.evaluation.curves import ArmReport
from codots.evaluation.evaluate import Report
from codots.evaluation.suites import SuiteReport
from codots.report.matrix import write_matrix
from codots.report.page import write_report
from codots.report.suite import write_suite_page
from codots.report.view import serve
from codots.rollout.records import dump
from tests.browser import WIDTHS, needs_chromium
from tests.report.runs import INJECTION, full_run, life, make_run, report, steps
from tests.report.test_matrix import suite

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[dev]'")
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Write the pages of one run, of two runs, and of a run with many lives."""
    folder = tmp_path_factory.mktemp("runs")
    first, second = (
        full_run(folder / "first"),
        make_run(folder / "second", metrics=steps(12), trained=life(3, [0, 1, 1])),
    )
    write_report([first], folder / "one.html")
    write_report([first, second], folder / "two.html")
    many = make_run(folder / "many")
    (many / "rollouts").mkdir()
    rows = [row for row in life(0, [0, 1, 1]) if row.kind == "solve"]
    for g in range(3000):
        for row in rows:
            object.__setattr__(row, "life", g)
        with (many / "rollouts" / "step-000001.jsonl").open("a") as file:
            file.write(dump(rows))
    write_report([many], folder / "many.html")
    return folder


def open_page(tab, path):
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready]", state="attached")


def rewards_shown(tab):
    return tab.locator("#life .life-head .cell").all_inner_texts()


def count(tab):
    return tab.locator("#count").inner_text()


def test_the_page_fits_its_width_and_shows_every_figure(tab, written):
    open_page(tab, written / "one.html")
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[tab.name][0]
    for summary in tab.locator("#report summary").all():
        summary.click()
    assert tab.locator("figure:visible").count() == 8
    assert tab.locator("table:visible").count() == 3
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[tab.name][0]
    for figure in tab.locator("figure svg").all():
        assert figure.bounding_box()["width"] > 300


def test_a_suite_shows_its_worlds_as_panels_under_one_legend(tab, tmp_path):
    names = ("a", "b", "c", "d", "e")
    one = report([0.5, 0.7, 0.8], [0.5, 0.5, 0.5])
    arms = {name: ArmReport(**arm) for name, arm in one["arms"].items()}
    reports = {name: Report(**one | {"arms": arms}) for name in names}
    found = SuiteReport("worlds", "mine", {0: reports, 10: reports})
    tab.goto(write_suite_page(found, tmp_path / "suite.html").as_uri())
    assert tab.locator("figure:visible").count() == 2 * len(names)
    assert tab.locator(".legend").first.inner_text().split() == [
        "own",
        "null",
        "ceiling",
        "bayes",
        "floor",
        "across:",
        "position",
    ]
    boxes = [figure.bounding_box() for figure in tab.locator(".panels svg").all()[: len(names)]]
    assert len({box["y"] for box in boxes}) == {"wide": 2, "phone": 5}[tab.name]
    assert tab.locator(".panels svg.panel path.c0").first.evaluate("e => getComputedStyle(e).stroke") != "none"
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[tab.name][0]


def test_the_matrix_is_a_table_whose_cells_are_coloured_by_value(tab, tmp_path):
    folders = [
        suite(tmp_path / name, lifts={f"world-{i}": sign * i / 10 for i in range(6)}, model=name)
        for name, sign in (("good", 1), ("bad", -1))
    ]
    tab.goto(write_matrix(folders, tmp_path / "matrix.html").as_uri())
    colours = [cell.evaluate("e => getComputedStyle(e).backgroundColor") for cell in tab.locator("td").all()]
    assert len(set(colours[:6])) == len(set(colours[6:])) == 5  # none, and four shades
    assert set(colours[:6]) & set(colours[6:]) == {colours[0]}
    assert tab.get_by_role("rowheader").all_inner_texts() == ["good", "bad"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[tab.name][0]


def test_the_chosen_life_is_open_and_drawn(tab, written):
    open_page(tab, written / "one.html")
    assert rewards_shown(tab)[0] == ".00"
    text = tab.locator("#life").inner_text()
    for part in (
        "Hidden in this world",
        "Task 1 of 3",
        "Task 3 of 3",
        "Context after task 1",
        "goal",
        "This life is shown first",
    ):
        assert part in text
    assert tab.locator("#life .board i[data-mark=P]").count() > 2
    assert tab.locator("#life .task").nth(-1).locator(".action").first.inner_text() in "1234"
    assert {text.strip() for text in tab.locator("#life ins").all_inner_texts()} == {"1=up", "2=left"}


def test_filters(tab, written):
    open_page(tab, written / "one.html")
    assert count(tab) == "8 of 8 lives"
    tab.locator(".chip", has_text="context hurt").click()
    sync_api.expect(tab.locator("#count")).to_have_text("2 of 8 lives")
    tab.locator(".chip", has_text="malformed").click()
    tab.locator(".chip", has_text="failed").click()
    sync_api.expect(tab.locator(".chip[aria-pressed=true]")).to_have_count(3)
    assert tab.locator(".row").count() == 2
    for chip in tab.locator(".chip[aria-pressed=true]").all()[::-1]:
        chip.click()
    tab.locator("#arm").select_option("null")
    sync_api.expect(tab.locator("#count")).to_have_text("3 of 8 lives")
    tab.locator("#arm").select_option("")
    tab.locator("#where").select_option("step 1")
    sync_api.expect(tab.locator("#count")).to_have_text("2 of 8 lives")


def test_search_covers_all_text_of_all_lives(tab, written):
    open_page(tab, written / "one.html")
    tab.locator("#find").fill("expected exactly one")
    sync_api.expect(tab.locator("#count")).to_have_text("1 of 8 lives")
    tab.locator("#find").fill("</SCRIPT><b>bold</b>")
    sync_api.expect(tab.locator("#count")).to_have_text("1 of 8 lives")
    tab.locator("#find").fill("a text that no life has")
    sync_api.expect(tab.locator("#count")).to_have_text("0 of 8 lives")
    assert tab.locator(".row").count() == 0


def test_model_output_is_shown_as_text(tab, written):
    open_page(tab, written / "one.html")
    tab.locator(".row").nth(1).click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 1")
    thought = tab.locator("#life .thought").first.inner_text()
    assert "<img src=x onerror=alert(1)>" in tab.locator("#life ins").first.inner_text() + thought
    assert tab.locator("#life img, #life script").count() == 0
    assert INJECTION[:20] in tab.locator("#life").inner_text()


def test_malformed_rewrites_and_harmful_contexts_are_marked(tab, written):
    open_page(tab, written / "one.html")
    tab.locator(".row").nth(2).click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 2")
    text = tab.locator("#life").inner_text()
    assert "The rewrite could not be parsed: expected exactly one <context>" in text
    assert "context hurt: null got" in text
    tab.locator("#life summary", has_text="Full reply").first.click()
    assert "<context> 1=up </context>" in tab.locator("#life").inner_text()
    tab.locator("#life summary", has_text="Rules shown to the model").click()
    assert "lake 8 moves" in tab.locator("#life").inner_text()


def test_a_life_is_compared_with_another_arm_of_the_same_pack(tab, written):
    open_page(tab, written / "one.html")
    tab.locator("#beside").select_option(label="compare with null, after")
    sync_api.expect(tab.locator("#life .story.pair")).to_have_count(1)
    assert tab.locator("#life .task").count() == 6
    assert "given by the arm null" in tab.locator("#life").inner_text()
    boxes = [task.bounding_box() for task in tab.locator("#life .task").all()[:2]]
    assert (boxes[0]["y"] == boxes[1]["y"]) == (tab.name == "wide")
    tab.locator("[aria-label='Next life']").click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 1")
    assert tab.locator("#beside option:checked").inner_text() == "compare with null, after"
    tab.locator("#beside").select_option(label="no comparison")
    sync_api.expect(tab.locator("#life .story.pair")).to_have_count(0)


def test_training_lives_show_their_advantages(tab, written):
    open_page(tab, written / "one.html")
    tab.locator("#where").select_option("step 1")
    sync_api.expect(tab.locator(".row")).to_have_count(2)
    tab.locator(".row").nth(1).click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 7")
    assert "advantage \u22120.25" in tab.locator("#life").inner_text()
    assert tab.locator("#beside option").all_inner_texts() == ["no comparison", "compare with own, step 1, life 0"]


def test_keyboard_navigation(tab, written):
    open_page(tab, written / "one.html")
    heading = tab.locator("#life h3")
    tab.keyboard.press("j")
    sync_api.expect(heading).to_contain_text("dev 1")
    tab.keyboard.press("k")
    sync_api.expect(heading).to_contain_text("dev 0")
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "find"
    tab.keyboard.type("j")
    sync_api.expect(heading).to_contain_text("dev 0")
    tab.locator("#find").fill("")
    tab.keyboard.press("Escape")
    assert tab.evaluate("document.activeElement.id") == "list"
    sync_api.expect(tab.locator("#count")).to_have_text("8 of 8 lives")
    tab.keyboard.press("End")
    sync_api.expect(heading).to_contain_text("dev 7")
    assert tab.locator("#list").get_attribute("aria-activedescendant") == tab.locator(
        "[aria-selected=true].row"
    ).get_attribute("id")
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowDown")
    sync_api.expect(heading).to_contain_text("dev 1")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "life"
    paired = tab.locator("#life .story.pair").count()
    tab.keyboard.press("b")
    sync_api.expect(tab.locator("#life .story.pair")).to_have_count(1 - paired)


def test_the_address_keeps_the_open_life(tab, written):
    open_page(tab, written / "one.html")
    tab.locator(".row").nth(2).click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 2")
    tab.reload()
    tab.wait_for_selector("html[data-ready]", state="attached")
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 2")


def test_tabs_switch_runs(tab, written):
    open_page(tab, written / "two.html")
    tab.get_by_role("tab", name="second").click()
    sync_api.expect(tab.locator("#run-1 h1")).to_be_visible()
    sync_api.expect(tab.locator("#run-0")).to_be_hidden()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 3")
    tab.keyboard.press("ArrowLeft")
    sync_api.expect(tab.locator("#run-0 h1")).to_be_visible()
    sync_api.expect(tab.locator("#count")).to_have_text("8 of 8 lives")


def test_only_visible_rows_of_many_lives_are_drawn(tab, written):
    open_page(tab, written / "many.html")
    assert count(tab) == "3,000 of 3,000 lives"
    assert 5 < tab.locator(".row").count() < 40
    tab.evaluate("document.getElementById('list').scrollTop = 1500 * 40")
    sync_api.expect(tab.locator(".row[aria-posinset='1505']")).to_be_visible()
    assert tab.locator(".row").count() < 40
    tab.locator(".row[aria-posinset='1505']").click()
    sync_api.expect(tab.locator("#life")).to_contain_text("life 1504")


def test_a_live_page_updates_without_losing_its_state(tab, tmp_path):
    folder = make_run(tmp_path / "run", metrics=steps(12), trained=[*life(0, [0, 1, 1]), *life(1, [1, 1, 1])], steps=30)
    with serve(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        tab.get_by_role("link", name="run").click()
        tab.wait_for_selector("html[data-ready]", state="attached")
        tab.locator(".row").nth(1).click()
        sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 1")
        sync_api.expect(tab.locator("#live")).to_contain_text("live, checked at")
        assert "12 of 30" in tab.locator("#run-0 .kicker").inner_text()
        (folder / "rollouts" / "step-000002.jsonl").write_text(dump(life(2, [0, 0, 1])))
        make_run(folder, metrics=steps(13), steps=30)
        sync_api.expect(tab.locator("#run-0 .kicker")).to_contain_text("13 of 30", timeout=60_000)
        sync_api.expect(tab.locator("#count")).to_have_text("3 of 3 lives")
        sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 1")
        tab.goto("about:blank")
        server.shutdown()
        thread.join()
