"""The server answers this machine alone, with runs and nothing else, and with what is there now."""

import http.client
import threading
from urllib.parse import quote

import pytest

from codots.report.view import serve
from tests.report.made import make_run, steps


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "secret.txt").write_text("not for you")
    (tmp_path / "runs").mkdir()
    make_run(tmp_path / "runs" / "first", metrics=steps(12), steps=30)
    make_run(tmp_path / "runs" / "a <b> & c", metrics=steps(3))
    return tmp_path / "runs"


@pytest.fixture
def get(runs):
    """Ask the server, running in this process."""
    with serve(runs, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()

        def ask(path, host=None, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            connection.request(method, path, headers={"Host": host} if host else {})
            answer = connection.getresponse()
            said = answer.status, answer.read().decode()
            connection.close()
            return said

        ask.server = server
        yield ask
        server.shutdown()
        thread.join()


def test_only_the_loopback_interface_is_bound(get):
    assert get.server.server_address[0] == "127.0.0.1"


def test_the_runs_are_listed_with_how_far_they_are(get):
    status, page = get("/")
    assert status == 200
    assert "12 of 30" in page
    assert 'href="/report?run=first"' in page
    assert "a &lt;b&gt; &amp; c" in page
    assert "<b> &" not in page


@pytest.mark.parametrize("text", ["steps:", "steps: many", "a: ["])
def test_a_run_that_cannot_be_read_hides_no_other(get, runs, text):
    make_run(runs / "broken", metrics=steps(3))
    (runs / "broken" / "config.yaml").write_text(text)
    status, page = get("/")
    assert status == 200
    assert "12 of 30" in page
    assert "config.yaml is no recipe" in page
    assert get("/report?run=broken")[0] == 500


def test_a_run_is_shown_by_its_name_whatever_letters_it_has(get):
    for name in ("first", "a <b> & c"):
        status, page = get(f"/report?run={quote(name)}")
        assert status == 200
        assert "Read any life" in page
        assert "connect-src 'self'" in page


def test_several_runs_are_shown_side_by_side(get):
    assert "Runs side by side" in get(f"/report?run=first&run={quote('a <b> & c')}")[1]


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/runs/../../secret.txt",
        "//etc/passwd",
        "/etc/passwd",
        "/secret.txt",
        "/report?run=../secret.txt",
        "/report?run=..",
        "/report?run=/etc",
        "/report?run=first/../..",
        "/report?run=..%2f..%2fetc",
        "/news?run=../",
    ],
)
def test_no_path_leads_out_of_the_runs(get, path):
    status, text = get(path)
    assert status == 404
    assert "not for you" not in text
    assert "root:" not in text


def test_an_unknown_run_names_the_nearest_and_none_is_asked_for(get):
    assert get("/report?run=frist") == (
        404,
        "unknown run 'frist'; expected one of a <b> & c, first; the nearest is 'first'",
    )
    assert get("/report")[0] == 400


def test_another_host_is_not_answered(get):
    assert get("/", host="evil.example")[0] == 403
    assert get("/", host=f"localhost:{get.server.server_port}")[0] == 200


def test_nothing_can_be_written(get):
    assert get("/", method="POST")[0] == 501
    assert get("/", method="HEAD") == (200, "")


def test_news_change_with_the_run_and_so_does_its_page(get, runs):
    before, page = get("/news?run=first"), get("/report?run=first")[1]
    assert get("/news?run=first") == before
    assert "12 of 30 training steps" in page
    make_run(runs / "first", metrics=steps(13), steps=30)
    assert get("/news?run=first") != before
    assert "13 of 30 training steps" in get("/report?run=first")[1]


def test_a_run_that_cannot_be_read_is_told_and_hides_no_other(get, runs):
    (runs / "first" / "metrics.jsonl").write_text("nonsense\n")
    status, text = get("/report?run=first")
    assert (status, text.count("\n")) == (500, 0)
    assert "metrics.jsonl, line 1: expected the numbers of a step" in text
    status, page = get("/")
    assert "metrics.jsonl, line 1" in page
    assert "a &lt;b&gt; &amp; c" in page


def test_a_folder_that_is_not_there_and_a_port_that_is_taken_are_refused(get, runs):
    with pytest.raises(ValueError, match="no folder"):
        serve(runs / "nowhere", 0)
    with pytest.raises(ValueError, match="give --port 0"):
        serve(runs, get.server.server_port)


def test_a_folder_without_runs_says_how_to_make_one(tmp_path):
    with serve(tmp_path, 0) as server:
        assert "No run is here yet" in server.RequestHandlerClass.viewer.answer("/")[2]
