"""In a real browser every part of the page works, at two widths, without a word on the console."""

import shutil
import threading

import pytest

from codots.report.page import write_report
from codots.report.view import serve
from codots.rollout.records import dump
from tests.report.made import EVIL, full_run, life, make_run, steps

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; apt-get install chromium")
WIDTHS = {"wide": (1280, 900), "phone": (390, 844)}
SLOW = 60_000


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def tab(request, browser):
    """A tab of one width; what it says on the console fails the test."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(SLOW)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.name = request.param
    yield page
    context.close()
    assert said == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of a full run, and one of it beside another."""
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
    for summary in tab.locator("#told summary").all():
        summary.click()
    assert tab.locator("figure:visible").count() == 8
    assert tab.locator("table:visible").count() == 3
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[tab.name][0]
    for figure in tab.locator("figure svg").all():
        assert figure.bounding_box()["width"] > 300


def test_the_first_life_that_got_better_is_open_and_drawn(tab, written):
    open_page(tab, written / "one.html")
    assert rewards_shown(tab)[0] == ".00"
    text = tab.locator("#life").inner_text()
    for part in (
        "Hidden in this world",
        "Task 1 of 3",
        "Task 3 of 3",
        "Context after task 1",
        "goal",
        "chosen as the first",
    ):
        assert part in text
    assert tab.locator("#life .board i[data-mark=P]").count() > 2
    assert tab.locator("#life .task").nth(-1).locator(".action").first.inner_text() in "1234"
    assert {text.strip() for text in tab.locator("#life ins").all_inner_texts()} == {"1=up", "2=left"}


def test_filters_leave_what_they_name(tab, written):
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


def test_search_reads_every_word_of_every_life(tab, written):
    open_page(tab, written / "one.html")
    tab.locator("#find").fill("expected exactly one")
    sync_api.expect(tab.locator("#count")).to_have_text("1 of 8 lives")
    tab.locator("#find").fill("</SCRIPT><b>bold</b>")
    sync_api.expect(tab.locator("#count")).to_have_text("1 of 8 lives")
    tab.locator("#find").fill("nobody ever said this")
    sync_api.expect(tab.locator("#count")).to_have_text("0 of 8 lives")
    assert tab.locator(".row").count() == 0


def test_a_models_words_are_shown_as_words(tab, written):
    open_page(tab, written / "one.html")
    tab.locator(".row").nth(1).click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 1")
    said = tab.locator("#life .thought").first.inner_text()
    assert "<img src=x onerror=alert(1)>" in tab.locator("#life ins").first.inner_text() + said
    assert tab.locator("#life img, #life script").count() == 0
    assert EVIL[:20] in tab.locator("#life").inner_text()


def test_a_rewrite_that_could_not_be_read_and_a_context_that_hurt_are_marked(tab, written):
    open_page(tab, written / "one.html")
    tab.locator(".row").nth(2).click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 2")
    text = tab.locator("#life").inner_text()
    assert "The rewrite could not be read: expected exactly one <context>" in text
    assert "context hurt: null got" in text
    tab.locator("#life summary", has_text="The whole reply").first.click()
    assert "<context> 1=up </context>" in tab.locator("#life").inner_text()
    tab.locator("#life summary", has_text="The rules").click()
    assert "lake 8 moves" in tab.locator("#life").inner_text()


def test_a_life_stands_beside_the_same_pack_under_another_arm(tab, written):
    open_page(tab, written / "one.html")
    tab.locator("#beside").select_option(label="beside null, after")
    sync_api.expect(tab.locator("#life .story.pair")).to_have_count(1)
    assert tab.locator("#life .task").count() == 6
    assert "given by the arm null" in tab.locator("#life").inner_text()
    boxes = [task.bounding_box() for task in tab.locator("#life .task").all()[:2]]
    assert (boxes[0]["y"] == boxes[1]["y"]) == (tab.name == "wide")
    tab.locator("[aria-label='Next life']").click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 1")
    assert tab.locator("#beside option:checked").inner_text() == "beside null, after"
    tab.locator("#beside").select_option(label="alone")
    sync_api.expect(tab.locator("#life .story.pair")).to_have_count(0)


def test_training_lives_show_their_advantages(tab, written):
    open_page(tab, written / "one.html")
    tab.locator("#where").select_option("step 1")
    sync_api.expect(tab.locator(".row")).to_have_count(2)
    tab.locator(".row").nth(1).click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 7")
    assert "advantage \u22120.25" in tab.locator("#life").inner_text()
    assert tab.locator("#beside option").all_inner_texts() == ["alone", "beside own, step 1, life 0"]


def test_everything_can_be_done_from_the_keyboard(tab, written):
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


def test_a_life_is_found_again_by_its_address(tab, written):
    open_page(tab, written / "one.html")
    tab.locator(".row").nth(2).click()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 2")
    tab.reload()
    tab.wait_for_selector("html[data-ready]", state="attached")
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 2")


def test_runs_are_changed_by_their_tabs(tab, written):
    open_page(tab, written / "two.html")
    tab.get_by_role("tab", name="second").click()
    sync_api.expect(tab.locator("#run-1 h1")).to_be_visible()
    sync_api.expect(tab.locator("#run-0")).to_be_hidden()
    sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 3")
    tab.keyboard.press("ArrowLeft")
    sync_api.expect(tab.locator("#run-0 h1")).to_be_visible()
    sync_api.expect(tab.locator("#count")).to_have_text("8 of 8 lives")


def test_of_thousands_of_lives_only_those_in_sight_are_drawn(tab, written):
    open_page(tab, written / "many.html")
    assert count(tab) == "3,000 of 3,000 lives"
    assert 5 < tab.locator(".row").count() < 40
    tab.evaluate("document.getElementById('list').scrollTop = 1500 * 40")
    sync_api.expect(tab.locator(".row[aria-posinset='1505']")).to_be_visible()
    assert tab.locator(".row").count() < 40
    tab.locator(".row[aria-posinset='1505']").click()
    sync_api.expect(tab.locator("#life")).to_contain_text("life 1504")


def test_a_page_that_is_served_takes_over_what_is_new_and_moves_nothing(tab, tmp_path):
    folder = make_run(tmp_path / "run", metrics=steps(12), trained=[*life(0, [0, 1, 1]), *life(1, [1, 1, 1])], steps=30)
    with serve(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        tab.get_by_role("link", name="run").click()
        tab.wait_for_selector("html[data-ready]", state="attached")
        tab.locator(".row").nth(1).click()
        sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 1")
        sync_api.expect(tab.locator("#live")).to_contain_text("live, asked at")
        assert "12 of 30" in tab.locator("#run-0 .kicker").inner_text()
        (folder / "rollouts" / "step-000002.jsonl").write_text(dump(life(2, [0, 0, 1])))
        make_run(folder, metrics=steps(13), steps=30)
        sync_api.expect(tab.locator("#run-0 .kicker")).to_contain_text("13 of 30", timeout=SLOW)
        sync_api.expect(tab.locator("#count")).to_have_text("3 of 3 lives")
        sync_api.expect(tab.locator("#life h3")).to_contain_text("dev 1")
        tab.goto("about:blank")
        server.shutdown()
        thread.join()
