"""The page of a server, in Chromium: contexts as they grew, what they are worth, and the way back, by a click."""

import pytest

from codots.agent.quarantine import list_held
from codots.agent.records import Outcome
from codots.agent.serving import gateway
from tests.agent.conftest import REWRITE
from tests.agent.lives import learner
from tests.agent.test_access import bearer, guarded
from tests.agent.test_quarantine import PLANTED, held
from tests.agent.test_server import Running
from tests.browser import WIDTHS, needs_chromium

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[dev]'")
pytestmark = needs_chromium
HOSTILE = "<img src=x onerror=alert(1)>"


def filled(running):
    """Fill a store with two worlds; one has five versions, and rewards with and without its context."""
    store = running.service.store
    store.create("repo", REWRITE)
    for i, text in enumerate(
        ("tests: make test", f"tests: make test\nport: 80 {HOSTILE}", "port: 8080", "port: 8080\nlint: make lint")
    ):
        store.put("repo", text, "import", f"file-{i}.md")
    for i in range(60):
        task = store.start("repo", "Mend it.", null_share=0.3)
        store.finish("repo", task.name, Outcome(float(task.arm == "own" or i % 3 == 0)))
    return running


@pytest.fixture
def running(serve, tmp_path):
    serve(learner)
    with gateway(str(tmp_path / "agent.db"), "openai:m", "default") as service, Running(service) as running:
        yield filled(running)


def open_page(tab, url):
    tab.goto(url)
    tab.wait_for_selector("html[data-ready]", state="attached")


def test_the_page_shows_worlds_lift_rewards_and_versions_as_text(running, tab):
    open_page(tab, f"{running.url}/#repo")
    assert tab.locator("#worlds tbody th").all_inner_texts() == ["default", "repo"]
    assert tab.locator("#lift").inner_text() == running.http.get("/v1/worlds/repo/lift").json()["sentence"]
    assert tab.locator("figure svg").count() == 2
    assert tab.locator("#versions li").count() == 5
    second = tab.locator("#versions li", has_text="2: import")
    assert second.locator("ins").inner_text().strip() == f"port: 80 {HOSTILE}"
    assert tab.locator("img").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[tab.name][0]


def test_a_click_goes_back_to_an_earlier_version(running, tab):
    open_page(tab, f"{running.url}/#repo")
    tab.get_by_role("button", name="Go back to version 1").click()
    sync_api.expect(tab.locator("#news")).to_have_text("Version 5 has the context of version 1.")
    sync_api.expect(tab.locator("#versions li").first).to_contain_text("5: rollback")
    assert running.service.store.head("repo").context == "tests: make test"


def test_a_held_context_is_adopted_or_dropped_by_a_click(running, tab):
    store = running.service.store
    store.create("door", REWRITE)
    for i in range(3):
        held(store, world="door", context=PLANTED + "\u200b" * (i == 0))
    open_page(tab, f"{running.url}/#door")
    assert tab.locator("#worlds tr", has_text="door").locator("mark").inner_text() == "3"
    first = tab.locator("article").first
    assert "it has an order" in first.inner_text()
    assert first.locator("ins").inner_text() == f"{PLANTED}<U+200B>"
    tab.get_by_role("button", name="Drop: task-0").click()
    sync_api.expect(tab.locator("#news")).to_have_text("The context of task-0 was dropped.")
    tab.get_by_role("button", name="Adopt: task-1").click()
    sync_api.expect(tab.locator("#news")).to_have_text("Adopted as version 4.")
    assert store.head("door").context == PLANTED
    assert [one.source for one in list_held(store, world="door")] == ["task-2"]
    tab.get_by_role("button", name="Adopt in place of the newest: task-2").click()
    sync_api.expect(tab.locator("article")).to_have_count(0)


def test_the_page_follows_what_happens(running, tab):
    open_page(tab, f"{running.url}/#repo")
    running.service.store.put("repo", "a new line", "import", "file-9.md")
    sync_api.expect(tab.locator("#versions li").first).to_contain_text("a new line", timeout=60_000)


def test_the_keyboard_reaches_everything(running, tab):
    open_page(tab, running.url)
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")  # the table scrolls, so it takes the focus first
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "repo"
    tab.keyboard.press("Enter")
    sync_api.expect(tab.locator("#world h2")).to_have_text("repo")
    assert tab.evaluate("document.activeElement.id") == "world"
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "Go-back-to-version-3":
            break
    tab.keyboard.press("Enter")
    sync_api.expect(tab.locator("#news")).to_have_text("Version 5 has the context of version 3.")


def test_the_page_is_dark_where_the_reader_wants_it(running, tab):
    colours = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        open_page(tab, f"{running.url}/#repo")
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(246, 248, 250)", "rgb(12, 16, 20)"]


def test_a_guarded_server_asks_for_a_key_and_shows_its_worlds_alone(browser, serve, tmp_path):
    from codots.agent.keys import create_key

    with guarded(serve, tmp_path) as running, browser.new_context() as context:
        key = create_key(running.service.store, "reader", ["mine"], writes=False)
        tab = context.new_page()
        open_page(tab, running.url)
        assert "Authorization" in tab.locator("#news").inner_text()
        tab.get_by_label("API key").fill(key)
        tab.keyboard.press("Enter")
        sync_api.expect(tab.locator("#worlds tbody th")).to_have_text(["mine"])
        tab.get_by_role("button", name="Go back to version 0").click()
        sync_api.expect(tab.locator("#news")).to_have_text("the key 'reader' may only read")
        assert running.http.get("/v1/worlds", headers=bearer(key)).status_code == 200


def test_no_other_page_may_frame_it_and_no_other_script_may_run(running):
    answer = running.http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
