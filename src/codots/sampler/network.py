"""How requests leave this machine: proxies, and the certificates that servers are checked against."""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from codots.core.redact import without_secrets

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def is_loopback(url: str) -> bool:
    """Return whether a URL is of this machine: localhost, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def http_client(url: str) -> Any:
    """Return an HTTP client for a server. Proxies of the environment are not used for a server on this machine.

    Raises ValueError, with the variable's name, if the environment names certificates or proxies that cannot be used.
    """
    import openai

    verify = certificates(url) or True
    try:
        return openai.DefaultAsyncHttpxClient(trust_env=not is_loopback(url), verify=verify)
    except (ValueError, ImportError) as error:
        named = ", ".join(f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.upper() in PROXIES)
        raise ValueError(without_secrets(f"the proxy cannot be used ({named}): {error}")) from None


def certificates(url: str) -> ssl.SSLContext | None:
    """Return the certificates that the environment names, or None if it names none or the server needs none.

    Raises ValueError, with the variable's name, if they cannot be read.
    """
    if is_loopback(url) and url.startswith("http:"):
        return None
    file, folder = (os.environ.get(name) for name in CERTIFICATES)
    if folder and not file and not all(map(os.path.isdir, folder.split(os.pathsep))):
        raise ValueError(f"SSL_CERT_DIR is {folder}, which is not a folder; correct or unset it")
    try:
        return ssl.create_default_context(cafile=file or None, capath=folder or None) if file or folder else None
    except OSError as error:
        reason = "it has no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"SSL_CERT_FILE is {file}, which cannot be read: {reason}; correct or unset it") from error


def usual_certificates(url: str) -> ssl.SSLContext:
    """Return the certificates that the environment names, or else those of the package certifi.

    Raises ValueError, with the variable's name, if they cannot be read.
    """
    import certifi

    return certificates(url) or ssl.create_default_context(cafile=certifi.where())


def proxy_url(url: str) -> str | None:
    """Return the proxy that the environment names for a server, or None; a server on this machine has none."""
    parts, found = urlsplit(url), getproxies()
    proxy = found.get(parts.scheme) or found.get("all")
    if not proxy or is_loopback(url) or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def proxy_of(url: str) -> str:
    """Return the proxy between this machine and a server, as `the proxy URL (VARIABLE)`, or '' if there is none."""
    proxy = proxy_url(url)
    if proxy is None:
        return ""
    same = (proxy, proxy.removeprefix("http://"))
    names = (name for name in os.environ if name.upper() in PROXIES and os.environ[name] in same)
    return f"the proxy {proxy} ({next(names, 'of the system settings')})"


def certificate_hint() -> str:
    """Return which variables replace the usual certificates, in parentheses, or ''."""
    named = [f"{name} is {os.environ[name]}" for name in CERTIFICATES if os.environ.get(name)]
    return f" ({', '.join(named)})" if named else ""
