"""A server on this machine is reached past proxies; a failing proxy or certificate file is named, not the server."""

import socket
import ssl
from contextlib import closing

import pytest

from codots.sampler.endpoint import Endpoint
from codots.sampler.network import certificates, http_client, is_loopback, proxy_of
from codots.sampler.openai import EndpointError, RefusedError
from tests.sampler.server import good
from tests.sampler.test_openai import SECRET, ask, endpoint

FAR = "http://models.example/v1"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def closed():
    """Return the address of a port where nothing listens."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:80", True),
        ("127.8.9.10", True),
        ("[::1]:8000", True),
        ("a.localhost", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.example", False),
    ],
)
def test_this_machine_is_recognized(host, local):
    assert is_loopback(f"http://{host}/v1") is local


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_server_on_this_machine_is_reached_past_proxies(serve, monkeypatch, closed, name):
    for value in (closed, "nonsense://"):
        monkeypatch.setenv(name, value)
        server = serve(good())
        ask(endpoint(server, tries=1))
        assert len(server.requests) == 1
    assert proxy_of(server.url) == ""


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_reached_is_named_without_its_login(monkeypatch, closed, name):
    monkeypatch.setenv(name, closed.replace("//", "//me:hush-hush@"))
    with pytest.raises(EndpointError) as error:
        ask(Endpoint("m", FAR, tries=1))
    assert f"the proxy {closed.replace('//', '//***@')} ({name}) cannot be reached" in str(error.value)
    assert "hush-hush" not in str(error.value)


@pytest.mark.parametrize("status", [407, 503])
def test_a_proxy_that_answers_instead_of_the_server_is_named(serve, monkeypatch, status):
    proxy = serve((status, b"<html>Access denied</html>", {"content-type": "text/html"}))
    monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
    with pytest.raises(RefusedError if status == 407 else EndpointError) as error:
        ask(Endpoint("m", FAR, tries=1))
    where = f"through the proxy {proxy.url.removesuffix('/v1')} (HTTP_PROXY)"
    assert str(error.value).endswith(f"status {status}, Access denied, {where}")


@pytest.mark.parametrize(("name", "value"), [("NO_PROXY", "models.example"), ("no_proxy", "*")])
def test_no_proxy_is_respected(monkeypatch, closed, name, value):
    monkeypatch.setenv("HTTP_PROXY", closed)
    assert proxy_of(FAR)
    monkeypatch.setenv(name, value)
    assert proxy_of(FAR) == ""
    with pytest.raises(EndpointError, match=r": it cannot be reached"):
        ask(Endpoint("m", FAR, tries=1))


def test_a_proxy_setting_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy")
    with pytest.raises(ValueError, match=r"the proxy cannot be used \(HTTPS_PROXY=nonsense://proxy\)"):
        ask(Endpoint("m", FAR, tries=1))


def test_certificates_that_cannot_be_read_are_named_before_anything_is_sent(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    (tmp_path / "empty.pem").touch()
    for name, value, line in (
        ("SSL_CERT_FILE", tmp_path / "gone.pem", r"SSL_CERT_FILE is .*gone\.pem, .*: No such file or directory"),
        ("SSL_CERT_FILE", tmp_path / "empty.pem", r"SSL_CERT_FILE is .*empty\.pem, .*: it has no certificates"),
        ("SSL_CERT_DIR", tmp_path / "gone", r"SSL_CERT_DIR is .*gone, which is not a folder"),
    ):
        monkeypatch.setenv(name, str(value))
        with pytest.raises(ValueError, match=line):
            Endpoint.from_environment("m", 1)
        with pytest.raises(ValueError, match=line):
            ask(Endpoint("m", "https://models.example/v1", tries=1))
        monkeypatch.delenv(name)


def test_a_server_on_this_machine_without_tls_needs_no_certificates(serve, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    ask(endpoint(serve(good())))


def test_certificates_of_the_environment_are_used(monkeypatch):
    file = ssl.get_default_verify_paths().cafile
    if not file:
        pytest.skip("this machine has no certificate file")
    monkeypatch.setenv("SSL_CERT_FILE", file)
    assert certificates("https://localhost/v1").cert_store_stats()["x509_ca"] > 0
    assert certificates("http://localhost/v1") is None


def test_a_proxy_that_cannot_be_used_is_named_without_its_login(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://me:hush-hush@host:1")
    with pytest.raises(ValueError, match=r"the proxy cannot be used \(HTTP_PROXY=nonsense://\*\*\*@host:1\)") as raised:
        http_client("http://far.example/v1")
    assert "hush" not in str(raised.value)
