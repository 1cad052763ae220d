"""Text as a reader may understand it: without look-alike letters, encodings and other disguises."""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

ALIKE = dict(
    zip(
        "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445"  # Cyrillic
        "\u0456\u0455\u0458\u051b\u051d\u04cf\u04bb\u0501"
        "\u03b1\u03b2\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u03c9\u03b7\u03b3"  # Greek
        "\u0585\u057d\u0578\u0570\u0581\u0575\u0261\u0269\u0251",  # Armenian, phonetic
        "abekmhopctyxisjqwlhdabeikvoptuxwnyounhgjgia",
        strict=True,
    )
)
"""Lower-case letters of other alphabets that look like Latin ones."""
NAMED = re.compile(r"^(?!CYRILLIC).*LETTER(?: SMALL CAPITAL| DOTLESS| SCRIPT)? ([A-Z])$")
"""Unicode name of a letter in another form, such as a small capital or a regional indicator."""
SCRIPTS = {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}
"""First words of the names of letters that look alike."""
ESCAPE = re.compile(r"\\(?:u\{?([0-9a-f]{4,5})\}?|x([0-9a-f]{2}))", re.IGNORECASE)
DIGITS = str.maketrans("0134578@$", "oieastbas")
"""Digits and signs that stand for letters."""
MIXED = re.compile(r"[\w@$]{3,}")
"""Words in which a digit may stand for a letter: at least three characters, two of them letters."""
SPACED = re.compile(r"(?<![^\W_])[^\W_]([ .·*_-])[^\W_](?![^\W_])(?:\1[^\W_](?![^\W_]))+")
"""Letters of a word that are kept apart by signs."""
TOKEN = re.compile(r"[A-Za-z0-9+/_-]+")
CODES = re.compile(r"(?:[01]{8}[\s,]*){6,}|(?:(?:0x)?[0-9a-f]{2}[\s,:]*){12,}", re.IGNORECASE)
MORSE = re.compile(r"(?=[-/ ]*\.)(?=[./ ]*-)(?:[.-]{1,5}[ /]+){10,}")
PRINTABLE = re.compile(rb"[\x09\x0a\x20-\x7e]+")
ENCODED, CODED = 12, 6
"""Minimum length of a text that counts as encoded, in characters: in base64 or hexadecimal, and in binary."""


class _Latin(dict[int, str]):
    """Characters in Latin letters; those without a width are left out. Found once, for `str.translate`."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind, found = unicodedata.category(char), NAMED.search(unicodedata.name(char, ""))
        gone = kind in ("Mn", "Me", "Cf", "Co") or (kind == "Cc" and char not in "\n\t")
        self[code] = "" if gone else found[1].lower() if found and not char.isascii() else ALIKE.get(char, char)
        return self[code]


_LATIN = _Latin()


def plain(text: str) -> str:
    """Return a text in lower case and in Latin letters, without accents and invisible characters. Lines stay."""
    text = unicodedata.normalize("NFKC", text).lower()
    if not text.isascii():
        text = unicodedata.normalize("NFD", text.translate(_LATIN))
    return text.translate(_LATIN)


def decoded(text: str) -> str:
    """Return a text with its HTML entities, percent-encoding and escapes decoded, as `plain` reads it."""
    return plain(ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), unquote(html.unescape(text))))


def views(text: str) -> list[str]:
    """Return the ways to read a text: as it is, decoded, with letters put together, with letters in place of digits,
    rotated by 13 letters, and reversed.
    """
    clear = decoded(text)
    joined = SPACED.sub(lambda found: re.sub(r"[ .·*_-]", "", found[0]), clear)
    words = MIXED.sub(_lettered, clear)
    rotated, backwards = codecs.encode(clear, "rot13"), "\n".join(line[::-1] for line in clear.split("\n"))
    return list(dict.fromkeys((plain(text), clear, joined, words, rotated, backwards)))


def _lettered(found: re.Match[str]) -> str:
    word = found[0]
    return word.translate(DIGITS) if not word.isalpha() and sum(map(str.isalpha, word)) > 1 else word


def hidden(text: str) -> str:
    """Return a part of a text that hides what it says, or an empty text.

    It has invisible characters among letters, letters of several alphabets in one word, or characters that a decoder of
    base64, hexadecimal, binary or Morse turns into readable text.
    """
    for word in () if text.isascii() else text.split():
        if any(not char.isascii() and _is_invisible(word, i) for i, char in enumerate(word)):
            return word
    for word in re.findall(r"[^\W\d_]{4,}", text):
        if not word.isascii() and len({unicodedata.name(c, "?").split()[0] for c in word} & SCRIPTS) > 1:
            return str(word)
    for part in (*(found[0] for found in CODES.finditer(text)), *_blobs(text)):
        if any(map(_is_readable, _decoded(part))):
            return part
    morse = MORSE.search(text)
    return morse[0] if morse else ""


def _is_invisible(text: str, at: int) -> bool:
    """Return whether a character is invisible and stands beside a Latin letter, or is of a kind that only hides."""
    char = text[at]
    if "\U000e0000" <= char <= "\U000e01ef" or "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069":
        return True
    beside = text[max(0, at - 1) : at] + text[at + 1 : at + 2]
    return unicodedata.category(char) in ("Cf", "Co") and any(c.isascii() and c.isalpha() for c in beside)


def _blobs(text: str) -> Iterator[str]:
    """Yield what may be base64: long words, and neighboring words that are no words of a language."""
    run = ""
    for token in TOKEN.findall(text):
        odd = any(map(str.isdigit, token)) or (len(token) > 3 and token.lower() != token != token.capitalize())
        if len(token) >= ENCODED:
            yield token
        if not odd:
            yield from [run] if run else []
        run = run + token if odd else ""
    yield run


def _decoded(text: str) -> Iterator[bytes]:
    """Yield what the decoders make of a text."""
    packed = re.sub(r"[\s,:]|0x", "", text)
    if re.fullmatch(rf"(?:[01]{{8}}){{{CODED},}}", packed):
        yield bytes(int(packed[i : i + 8], 2) for i in range(0, len(packed) // 8 * 8, 8))
    if len(packed) < 4 * ENCODED // 3:
        return
    if re.fullmatch(r"[0-9a-fA-F]*[a-fA-F][0-9a-fA-F]*", packed):  # numbers of two digits are no text
        yield bytes.fromhex(packed[: len(packed) // 2 * 2])
    for start in range(4):
        whole = packed[start : start + (len(packed) - start) // 4 * 4].replace("-", "+").replace("_", "/")
        try:
            yield base64.b64decode(whole)
        except binascii.Error:
            continue


def _is_readable(data: bytes) -> bool:
    """Return whether bytes are a text, most of it letters and spaces."""
    if not PRINTABLE.fullmatch(data):
        return False
    return sum(chr(byte).isalpha() or byte == 32 for byte in data) > 0.7 * len(data)
