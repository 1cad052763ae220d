"""A judge of questions behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Timer
from typing import Any
from urllib.parse import urlsplit

from codots.domains.learn2ask.log import DOCTOR, Line
from codots.domains.learn2ask.template import render

URL, MODEL, KEY, EXTRAS = "CODOTS_JUDGE_URL", "CODOTS_JUDGE_MODEL", "CODOTS_JUDGE_KEY", "CODOTS_JUDGE_EXTRAS"
MAX_ANSWER_BYTES = 1 << 20
"""Maximum size of a response in bytes."""
MAX_NOTE = 300
"""Maximum characters of the note in a verdict."""
DEADLINE = 300.0
"""Timeout in seconds for all tries and pauses of one verdict."""
RETRY_STATUSES = frozenset({408, 409, 425, 429})
"""HTTP statuses below 500 that are retried."""
VLLM = {"top_k": 20, "chat_template_kwargs": {"enable_thinking": True}}


class JudgeError(RuntimeError):
    """Error for a judge that returns no verdict.

    The life then counts as missing (lost to an infrastructure failure), because no reward would be right.
    """


class RefusedError(JudgeError):
    """Error for a judge that rejects the request, so that a retry would not help."""


@dataclass(frozen=True)
class Verdict:
    """Verdict of a judge on a question. The scores are between 0 and 1."""

    format: float
    content: float
    note: str


@dataclass(frozen=True)
class Judge:
    """Client that asks a judge model for a verdict, with retries. The settings are those of arXiv 2606.20002."""

    url: str
    """Base URL, to which `/chat/completions` is appended."""
    model: str
    key: str = field(default="", repr=False)
    """API key. The key appears only in the Authorization header."""
    extras: Mapping[str, Any] = field(default_factory=lambda: VLLM)
    """Additional request fields. The default suits vLLM."""
    tries: int = 6
    """Maximum number of tries."""
    pause: float = 1.0
    """Seconds before the second try. The pause doubles with each further try."""
    timeout: float = 120.0
    """Timeout in seconds for one try, from connect to last byte."""
    deadline: float = DEADLINE
    """Timeout in seconds for all tries and pauses together."""

    def __call__(self, lines: Sequence[Line], reply: str, wanted: str) -> Verdict:
        """Score a question. Raises JudgeError if there is no verdict."""
        until, reason = time.monotonic() + self.deadline, "no time"
        for number in range(self.tries):
            wait = self.pause * 2 ** (number - 1) if number else 0.0
            left = until - time.monotonic() - wait
            if left <= 0:
                break
            time.sleep(wait)
            try:
                return read_verdict(self._ask(self._body(lines, reply, wanted), min(left, self.timeout)))
            except RefusedError:
                raise
            except JudgeError as error:
                reason = str(error)
        raise JudgeError(f"the judge gave no verdict within {self.tries} tries and {self.deadline:g} s: {reason}")

    def _body(self, lines: Sequence[Line], reply: str, wanted: str) -> bytes:
        user = render(
            "judge.user",
            dialogue=[quote(line) for line in labeled(lines)],
            reply=quote(reply),
            wanted=quote(wanted),
        )
        messages = [{"role": "system", "content": render("judge.system")}, {"role": "user", "content": user}]
        asked = {"model": self.model, "messages": messages, "temperature": 1.0, "top_p": 0.95, **self.extras}
        return json.dumps(asked).encode()

    def _ask(self, body: bytes, seconds: float) -> str:
        """Send one request and return the text of the answer."""
        status, answer = self._post(body, seconds)
        if status != 200:
            raise (JudgeError if status in RETRY_STATUSES or status >= 500 else RefusedError)(
                f"the judge answered with status {status}"
            )
        try:
            said = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            said = None
        if not isinstance(said, str):
            raise JudgeError("the judge's answer was not a chat completion")
        return said

    def _post(self, body: bytes, seconds: float) -> tuple[int, bytes]:
        where = urlsplit(self.url)
        kind = HTTPSConnection if where.scheme == "https" else HTTPConnection
        connection = kind(where.hostname or "", where.port, timeout=seconds)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        held: list[socket.socket] = []  # keep the socket, because the connection drops it when it reads the response
        timer = Timer(seconds, _shut_down, [connection, held])  # a socket timeout restarts with every byte
        timer.daemon = True
        timer.start()
        began = time.monotonic()
        try:
            connection.connect()
            held.append(connection.sock)
            if time.monotonic() - began > seconds:
                raise TimeoutError
            connection.request("POST", f"{where.path.rstrip('/')}/chat/completions", body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, HTTPException, ValueError) as error:  # its text could contain the request
            raise JudgeError(f"the judge could not be reached: {type(error).__name__}") from None
        finally:
            timer.cancel()
            connection.close()
        if len(answer) > MAX_ANSWER_BYTES:
            raise JudgeError(f"the judge's answer was larger than {MAX_ANSWER_BYTES} bytes")
        return response.status, answer


def _shut_down(connection: HTTPConnection, held: list[socket.socket]) -> None:
    """Unblock a thread that waits on a connection. Bypasses TLS, which does not support calls from a second thread."""
    for waiting in held or [connection.sock]:
        with suppress(OSError):
            if waiting is not None:
                socket.socket.shutdown(waiting, socket.SHUT_RDWR)


def judge_lacks() -> str | None:
    """Return one line on the environment variables that the judge still needs, or None if all of them are set."""
    missing = [name for name in (URL, MODEL) if not os.environ.get(name)]
    if missing:
        return f"set {' and '.join(missing)} (and {KEY} if it wants one) to an OpenAI-compatible endpoint of the judge"
    return None


def judge_from_environment() -> Judge:
    """Return the judge that the environment variables describe.

    Raises ValueError if a variable is missing or invalid. The message never contains the key.
    """
    if lacks := judge_lacks():
        raise ValueError(lacks)
    url, key = os.environ[URL].strip(), os.environ.get(KEY, "").strip()
    if not _is_valid_url(url):
        raise ValueError(f"{URL} is not a URL of the form https://host:port/v1 without user name, password and query")
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ValueError(f"{KEY} contains characters that are not allowed in a header")
    try:
        extras = json.loads(os.environ.get(EXTRAS) or json.dumps(VLLM))
    except ValueError:
        extras = None
    if not isinstance(extras, dict):
        raise ValueError(f'{EXTRAS} is not a JSON object such as {{"top_k": 20}}')
    return Judge(url, os.environ[MODEL].strip(), key, extras)


def _is_valid_url(url: str) -> bool:
    try:
        where = urlsplit(url)
        port = where.port
    except ValueError:
        return False
    plain = re.fullmatch(r"[\x21-\x7e]+", url) and not (where.query or where.fragment or "@" in where.netloc)
    return bool(plain and where.scheme in ("http", "https") and where.hostname and port != 0)


def labeled(lines: Sequence[Line]) -> list[str]:
    """Return the messages of a dialogue, each prefixed with its speaker."""
    return [f"{'Doctor' if role == DOCTOR else 'Patient'}: {said}" for role, said in lines]


def quote(text: str) -> str:
    """Return a text as a JSON string on one line.

    Invisible characters are escaped. So are characters that could close the quote, form a verdict tag or form a marker
    of a chat template.
    """
    return "".join(_escaped(char) for char in json.dumps(text, ensure_ascii=False))


def _escaped(char: str) -> str:
    if char.isprintable() and char not in "<>[]|":
        return char
    code = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))


def read_verdict(text: str) -> Verdict:
    """Parse the judge's text after the thinking.

    Raises JudgeError if a score or the feedback is absent or repeated, or if a score is not a number from 0 to 1.
    """
    text = text.rpartition("</think>")[2]
    return Verdict(
        _score(text, "format_score"),
        _score(text, "content_score"),
        " ".join(_cell(text, "feedback").split())[:MAX_NOTE],
    )


def _score(text: str, tag: str) -> float:
    cell = _cell(text, tag).strip()
    try:
        score = float(cell) if len(cell) <= 16 else math.nan
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise JudgeError(f"the judge gave {tag} {cell!r:.40}, expected a number from 0 to 1")
    return score


def _cell(text: str, tag: str) -> str:
    opening, closing = f"[{tag}]", f"[/{tag}]"
    inside, closed, _ = text.partition(opening)[2].partition(closing)
    if text.count(opening) != 1 or text.count(closing) != 1 or not closed:
        raise JudgeError(f"the judge's answer does not contain exactly one {opening} followed by one {closing}")
    return inside


Scorer = Callable[[Sequence[Line], str, str], Verdict]
"""Function that scores a question, given the dialogue, the reply and what was wanted."""
