"""Tests of the server: local requests only, no path outside of the runs, and live updates."""

import http.client
import threading
from urllib.parse import quote

import pytest

from codots.report.view import serve
from tests.report.runs import make_run, steps


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "secret.txt").write_text("not for you")
    (tmp_path / "runs").mkdir()
    make_run(tmp_path / "runs" / "first", metrics=steps(12), steps=30)
    make_run(tmp_path / "runs" / "a <b> & c", metrics=steps(3))
    return tmp_path / "runs"


@pytest.fixture
def get(runs):
    """Return a function that sends a request to a server in this process."""
    with serve(runs, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()

        def request(path, host=None, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            connection.request(method, path, headers={"Host": host} if host else {})
            answer = connection.getresponse()
            result = answer.status, answer.read().decode()
            connection.close()
            return result

        request.server = server
        yield request
        server.shutdown()
        thread.join()


def test_the_server_binds_only_the_loopback_interface(get):
    assert get.server.server_address[0] == "127.0.0.1"


def test_the_list_of_runs_shows_their_progress(get):
    status, page = get("/")
    assert status == 200
    assert "12 of 30" in page
    assert 'href="/report?run=first"' in page
    assert "a &lt;b&gt; &amp; c" in page
    assert "<b> &" not in page


@pytest.mark.parametrize("text", ["steps:", "steps: many", "a: ["])
def test_a_run_with_an_invalid_recipe_does_not_hide_other_runs(get, runs, text):
    make_run(runs / "broken", metrics=steps(3))
    (runs / "broken" / "config.yaml").write_text(text)
    status, page = get("/")
    assert status == 200
    assert "12 of 30" in page
    assert "config.yaml is not a recipe" in page
    assert get("/report?run=broken")[0] == 500


def test_a_run_name_may_have_special_characters(get):
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
def test_no_path_leads_outside_of_the_runs(get, path):
    status, text = get(path)
    assert status == 404
    assert "not for you" not in text
    assert "root:" not in text


def test_an_unknown_or_missing_run_is_an_error(get):
    assert get("/report?run=frist") == (
        404,
        "unknown run 'frist'; expected one of a <b> & c, first; the nearest is 'first'",
    )
    assert get("/report")[0] == 400


def test_another_host_is_refused(get):
    assert get("/", host="evil.example")[0] == 403
    assert get("/", host=f"localhost:{get.server.server_port}")[0] == 200


def test_the_server_is_read_only(get):
    assert get("/", method="POST")[0] == 501
    assert get("/", method="HEAD") == (200, "")


def test_the_stamp_and_the_page_change_with_the_run(get, runs):
    before, page = get("/news?run=first"), get("/report?run=first")[1]
    assert get("/news?run=first") == before
    assert "12 of 30 training steps" in page
    make_run(runs / "first", metrics=steps(13), steps=30)
    assert get("/news?run=first") != before
    assert "13 of 30 training steps" in get("/report?run=first")[1]


def test_a_run_with_invalid_metrics_does_not_hide_other_runs(get, runs):
    (runs / "first" / "metrics.jsonl").write_text("nonsense\n")
    status, text = get("/report?run=first")
    assert (status, text.count("\n")) == (500, 0)
    assert "metrics.jsonl, line 1: expected the metrics of a step" in text
    status, page = get("/")
    assert "metrics.jsonl, line 1" in page
    assert "a &lt;b&gt; &amp; c" in page


def test_a_missing_folder_and_a_taken_port_are_refused(get, runs):
    with pytest.raises(ValueError, match="no folder"):
        serve(runs / "nowhere", 0)
    with pytest.raises(ValueError, match="give --port 0"):
        serve(runs, get.server.server_port)


def test_an_empty_folder_explains_how_to_create_a_run(tmp_path):
    with serve(tmp_path, 0) as server:
        assert "This folder has no runs yet" in server.RequestHandlerClass.viewer.answer("/")[2]
