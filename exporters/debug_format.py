"""Spans as text for human eyes, columns aligned.

A span's line reads as a sentence: when, which service, was called by (``←``) or called (``→``) which peer, for what,
how it ended, how long it took. Strings may come from a peer's payload, so what could steer a terminal is replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from ..pipeline.spans import SpanBatch, SpanKind, StatusCode, is_present

_ARROWS = {SpanKind.SERVER: "←", SpanKind.CONSUMER: "←", SpanKind.CLIENT: "→", SpanKind.PRODUCER: "→"}
SERVICE_WIDTH, _PEER_WIDTH, _NAME_WIDTH, _STATUS_WIDTH, _DURATION_WIDTH = 16, 21, 24, 5, 7
_NARROWEST_NAME = 8
#: of a line from the service to the duration what is neither peer nor name; with both; and with the time of day before it
_FRAME = SERVICE_WIDTH + len(" ←  ") + _STATUS_WIDTH + len(" ") + _DURATION_WIDTH
_WITH_PEER = _FRAME + _PEER_WIDTH + len(" ") + _NAME_WIDTH
_WITH_CLOCK = len("00:00:00.000 ") + _WITH_PEER

#: click.style or :func:`plain`.
Style: TypeAlias = Callable[..., str]
Verbosity: TypeAlias = Literal["basic", "normal", "detailed"]


def plain(text: str, **attributes: object) -> str:
    """The style where there are no colours."""
    return text


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span of a batch, with the attributes of all its parts. start, end: ns since the Unix epoch."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: SpanKind
    start: int
    end: int
    status: StatusCode
    resource: Mapping[str, object]
    attributes: Mapping[str, object]


def span_row(batch: SpanBatch, row: int) -> SpanRow:
    fragments = [column.table.fragments[column.ids[row]] for column in batch.fragments]
    attributes = {key: value for fragment in fragments for key, value in fragment.attributes}
    for key, values in batch.numbers.items():
        if is_present(values[row : row + 1])[0]:
            attributes[key] = values[row].item()
    attributes |= {key: text for key, column in batch.texts.items() if (text := column.text(row)) is not None}
    high, low = batch.trace_id[row].tolist()
    parent = int(batch.parent_span_id[row])
    return SpanRow(
        trace_id=f"{high:016x}{low:016x}",
        span_id=f"{batch.span_id[row]:016x}",
        parent_span_id=f"{parent:016x}" if parent else "",
        name=next((fragment.name for fragment in fragments if fragment.name is not None), ""),
        kind=SpanKind(batch.kind[row]),
        start=int(batch.start[row]),
        end=int(batch.end[row]),
        status=max((fragment.status for fragment in fragments), default=StatusCode.UNSET),
        resource=batch.resources.resources[batch.resource[row]],
        attributes=attributes,
    )


def line(span: SpanRow, style: Style) -> str:
    """A span on one line."""
    parts = [
        style(clock(span.start / 1e9), dim=True),
        _exchange(span, style, f"{_peer(span.attributes):<{_PEER_WIDTH}} ", _NAME_WIDTH),
        style(_details(span.attributes), dim=True),
    ]
    return " ".join(parts).rstrip()


def line_of(columns: int, span: SpanRow, style: Style) -> str:
    """The same where there are so many columns: that how it ended and how long it took have room, the time of day gives way,
    and then the peer. What is wider all the same is to be cropped."""
    if columns >= _WITH_CLOCK:
        return line(span, style)
    if columns >= _WITH_PEER:
        return _exchange(span, style, f"{_peer(span.attributes):<{_PEER_WIDTH}} ", _NAME_WIDTH)
    return _exchange(span, style, "", max(_NARROWEST_NAME, columns - _FRAME))


def _exchange(span: SpanRow, style: Style, peer: str, name_width: int) -> str:
    status, colour = _status(span)
    service = column(str(span.resource.get("service.name", "")), SERVICE_WIDTH)
    name = style(column(_subject(span), name_width), bold=True)
    ended = style(f"{printable(status):<{_STATUS_WIDTH}}", fg=colour)
    took = f"{duration((span.end - span.start) / 1e9):>{_DURATION_WIDTH}}"
    return f"{service} {_ARROWS.get(span.kind, '·')} {peer}{name} {ended} {took}"


def batch_line(batch: SpanBatch, style: Style) -> str:
    """A batch on one line."""
    resources = len(set(batch.resource.tolist()))
    return f"{style(clock(time.time()), dim=True)} spans: {len(batch)}, resources: {resources}"


def paragraph(span: SpanRow, style: Style) -> str:
    """A span with all its ids and attributes, one on each line below it."""
    fields: dict[str, object] = {"trace_id": span.trace_id, "span_id": span.span_id}
    if span.parent_span_id:
        fields["parent_span_id"] = span.parent_span_id
    fields |= {f"resource {key}": value for key, value in span.resource.items()}
    fields |= span.attributes
    return "\n".join([line(span, style), *(f"    {printable(f'{key}: {value}')}" for key, value in fields.items())])


def duration(seconds: float) -> str:
    """Three digits or so and the unit that fits: ``850ns``, ``12.3µs``, ``1.50ms``, ``2.00s``, ``1m05s``."""
    if seconds >= 60:
        return f"{seconds // 60:.0f}m{seconds % 60:02.0f}s" if seconds % 60 < 59.5 else f"{seconds // 60 + 1:.0f}m00s"
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 0.9995:
            return f"{_three_digits(seconds * scale)}{unit}"
    return f"{seconds * 1e9:.0f}ns"


def size(count: int) -> str:
    """Bytes in the unit that fits: ``512B``, ``1.50KiB``."""
    if count < 1024:
        return f"{count}B"
    value, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 999.5:
            break
        value, unit = value / 1024, larger
    return f"{_three_digits(value)}{unit}"


def _subject(span: SpanRow) -> str:
    """The name, and of HTTP the path that conventions keep out of it."""
    path = span.attributes.get("url.path") or urlsplit(str(span.attributes.get("url.full", ""))).path
    return f"{span.name} {path}" if path else span.name


def clock(seconds: float) -> str:
    """Local time of day of a Unix time, with milliseconds."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S.%f")[:-3]


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _status(span: SpanRow) -> tuple[str, str]:
    """What the exchange ended with, and its colour."""
    code = span.attributes.get("http.response.status_code")
    if span.status is StatusCode.ERROR:
        return str(code or span.attributes.get("error.type", "error")), "red"
    if code is None:
        return "ok", "green"
    return str(code), "yellow" if str(code) >= "400" else "green"


def _peer(attributes: Mapping[str, object]) -> str:
    address, port = str(attributes.get("network.peer.address", "")), attributes.get("network.peer.port")
    host = f"[{address}]" if ":" in address else address
    return printable(host if port is None else f"{host}:{port}")


def _details(attributes: Mapping[str, object]) -> str:
    """Where the time went and how much was moved, of what is known."""
    details = []
    for part in ("queue", "processing"):
        seconds = attributes.get(f"wirespan.{part}.duration")
        if isinstance(seconds, float):
            details.append(f"{part} {duration(seconds)}")
    sizes = [attributes.get(f"wirespan.{side}.size") for side in ("request", "response")]
    if any(isinstance(count, int) for count in sizes):
        details.append("/".join(size(count) if isinstance(count, int) else "?" for count in sizes))
    return "  ".join(details)


def column(text: str, width: int) -> str:
    text = printable(text)
    return f"{text:<{width}}" if len(text) <= width else f"{text[: width - 1]}…"


def printable(text: str) -> str:
    """The text without what could steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
