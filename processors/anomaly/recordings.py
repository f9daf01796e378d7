"""Recorded OTLP, request by request: JSON lines as the exporter ``file`` writes them, or protobuf.

Protobuf is a single message, or messages each with its length before it in four bytes, big-endian, as the Collector's file
exporter writes them. What is no request of traces is passed on as it is, and counted if it cannot be read at all.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .otlp_spans import SpanFacts, of_json, of_messages

Encoding: TypeAlias = Literal["json", "framed", "protobuf"]
Found: TypeAlias = list[tuple[Any, SpanFacts]]

_LENGTH: Final = 4
_LARGEST: Final = 1 << 30
_MALFORMED: Final = (ValueError, TypeError, KeyError, AttributeError, DecodeError, RecursionError)


class RecordingError(Exception):
    """The message says which file, and what is the matter with it."""


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that paths, folders and globs name, in order; raises RecordingError for one that names none."""
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            names = sorted(str(file) for file in path.iterdir() if file.is_file())
        else:
            names = [pattern] if path.exists() else sorted(glob.glob(pattern, recursive=True))
        if not names:
            raise RecordingError(f"{pattern}: there is no such file")
        found += [Path(name) for name in names]
    return list(dict.fromkeys(found))


@dataclass(slots=True)
class Request:
    """request: as read, None for what is none. spans: with what is known of each. data: as it stands in the file."""

    encoding: Encoding
    request: Any
    spans: Found
    data: bytes

    def encoded(self) -> bytes:
        """As it goes into a file, with what was added to its spans."""
        if self.request is None or not self.spans:
            return self.data
        if self.encoding == "json":
            return json.dumps(self.request, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        message: bytes = self.request.SerializeToString()
        return message if self.encoding == "protobuf" else len(message).to_bytes(_LENGTH, "big") + message


def requests(paths: Iterable[Path]) -> Iterator[Request]:
    """All requests of the files; raises RecordingError for a file that cannot be read."""
    for path in paths:
        try:
            with path.open("rb") as file:
                yield from _of_file(file, path.stat().st_size)
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from error


def _of_file(file: BinaryIO, size: int) -> Iterator[Request]:
    head = file.read(_LENGTH)
    file.seek(0)
    if not head:
        return
    if head.lstrip()[:1] == b"{":
        for line in file:
            yield _json(line)
    elif int.from_bytes(head, "big") + _LENGTH <= size:
        while len(head := file.read(_LENGTH)) == _LENGTH:
            yield _message(file.read(min(int.from_bytes(head, "big"), _LARGEST)), "framed", head)
    else:
        yield _message(file.read(), "protobuf", b"")


def _json(line: bytes) -> Request:
    if not line.strip():
        return Request("json", {}, [], line)
    try:
        request = json.loads(line)
        return Request("json", request, list(of_json(request)), line)
    except _MALFORMED:
        return Request("json", None, [], line)


def _message(data: bytes, encoding: Encoding, head: bytes) -> Request:
    try:
        request = ExportTraceServiceRequest.FromString(data)
        return Request(encoding, request, list(of_messages(request)), head + data)
    except _MALFORMED:
        return Request(encoding, None, [], head + data)
