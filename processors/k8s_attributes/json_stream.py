"""What the API server answers, an object at a time: a list of 20,000 pods is 200 MB at once, and 60 KB so.

A list is one JSON object, of which ``items`` holds the objects; a watch is a line an event. What is not UTF-8 is replaced.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

#: characters, or bytes, of one object; etcd takes 1.5 MB
OBJECT_LIMIT: Final = 16_777_216

_DECODER: Final = json.JSONDecoder()
_BETWEEN: Final = " \t\r\n,:"


class MalformedAnswer(Exception):
    """What came is no list and no event, or ends early."""


def items_of_list(chunks: Iterable[bytes], rest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects of a list as they come; all else of it is put into ``rest``."""
    text = _Text(chunks)
    text.expect("{")
    while text.next() != "}":
        key = text.value()
        if key == "items" and text.next() == "[":
            text.expect("[")
            while text.next() != "]":
                yield text.mapping()
            text.expect("]")
        else:
            rest[str(key)] = text.value()


def events(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The events of a watch as they come. One that is cut off at the end is none."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        if b"\n" in chunk:
            *lines, rest = pending.split(b"\n")
            pending = bytearray(rest)
            yield from (_event(bytes(line)) for line in lines if line.strip())
        if len(pending) > OBJECT_LIMIT:
            raise MalformedAnswer(f"an event of more than {OBJECT_LIMIT} bytes")


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer("an event that is no JSON") from error
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise MalformedAnswer("an event without an object")
    return event


class _Text:
    """Text that comes in chunks, read value by value."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._at = 0

    def next(self) -> str:
        """The next character that is none between values."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BETWEEN:
                    return self._text[self._at]
                self._at += 1
            self._read()

    def expect(self, character: str) -> None:
        if self.next() != character:
            raise MalformedAnswer(f"expected {character}")
        self._at += 1

    def mapping(self) -> dict[str, Any]:
        value = self.value()
        if not isinstance(value, dict):
            raise MalformedAnswer("an item that is no object")
        return value

    def value(self) -> Any:
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError):
                self._read()
                continue
            if end < len(self._text):  # else it may be the beginning of a longer number
                self._at = end
                return value
            self._read()

    def _read(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise MalformedAnswer("the list ends early")
        self._text = self._text[self._at :] + self._decoder.decode(chunk)
        self._at = 0
        if len(self._text) > OBJECT_LIMIT:
            raise MalformedAnswer(f"an object of more than {OBJECT_LIMIT} characters")
