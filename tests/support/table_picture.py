"""The table of README.md: what a run showed of curl, a web client, a shop, Redis, billing and a ledger, 14 s long.

``python tests/support/table_picture.py`` puts it into README.md, as the code draws it now.
"""

from __future__ import annotations

import re
from pathlib import Path

from rich.text import Text

from wirespan.exporters.terminal.activity import Edge, Row, Totals
from wirespan.exporters.terminal.view import Content, Health, frame
from wirespan.pipeline.spans import SpanKind

README = Path(__file__).parents[2] / "README.md"
COLUMNS, LINES = 112, 30
HERE, CLIENT, SERVER = "127.0.0.1", SpanKind.CLIENT, SpanKind.SERVER

SPANS = """\
08:21:04.598 ledger           ← 127.0.0.1:34580       TCP 17000                ok     20.2ms queue 27.4µs  processing 20.2ms  9B/7B
08:21:04.655 shop             → 127.0.0.1:16379       SET                      ok     20.1µs processing 13.3µs  28B/5B
08:21:04.700 shop             ← 127.0.0.1:36386       GET /checkout            503    11.1ms queue 55.9µs  processing 11.0ms  76B/130B
08:21:04.788 curl             → 127.0.0.1:18080       GET /cart/42             200    11.3ms processing 11.2ms  86B/113B
08:21:04.818 ledger           ← 127.0.0.1:34580       TCP 17000                ok     20.1ms queue 24.1µs  processing 20.1ms  9B/7B"""


def _row(service: str, kind: SpanKind, port: int, peer: str, protocol: str, *numbers: float | None) -> Row:
    rate, requests, errors, p50, p99, queue = numbers
    edge = Edge(service, kind, HERE, port, HERE, protocol)
    assert rate is not None
    assert requests is not None
    assert errors is not None
    names = (f"{service}:{port}", peer) if kind is SERVER else (service, f"{peer}:{port}")
    return Row(edge, *names, rate, int(requests), int(errors), int(errors), p50, p99, queue)


CONTENT = Content(
    up=14,
    totals=Totals(587, 7480, 28),
    health=Health(7480, 0, 0),
    rows=(
        _row("shop", CLIENT, 16379, "redis-server", "redis", 193, 2456, 0, 39.8e-6, 189e-6, None),
        _row("redis-server", SERVER, 16379, "shop", "redis", 193, 2456, 0, 24.7e-6, 140e-6, 14.7e-6),
        _row("shop", SERVER, 18080, "web +1", "http", 96.3, 1227, 14, 10.6e-3, 14.4e-3, 53.9e-6),
        _row("web", CLIENT, 18080, "shop", "http", 95.0, 1215, 14, 10.6e-3, 14.4e-3, None),
        _row("billing", CLIENT, 17000, "ledger", "tcp", 4.5, 57, 0, 20.4e-3, 21.3e-3, None),
        _row("ledger", SERVER, 17000, "billing", "tcp", 4.5, 57, 0, 20.4e-3, 21.3e-3, 24.7e-6),
        _row("curl", CLIENT, 18080, "shop", "http", 1.2, 12, 0, 11.1e-3, 14.4e-3, None),
    ),
    spans=[Text(line) for line in SPANS.splitlines()],
)


def picture() -> str:
    """The frame as it is on a terminal, without colours."""
    lines = frame(CONTENT, COLUMNS, LINES)
    for line in lines:
        line.truncate(COLUMNS, overflow="ellipsis")
    return "\n".join(line.plain for line in lines) + "\n"


def renewed(page: str) -> str:
    """The page with the picture in its first block of text."""
    return re.sub(r"(?<=^```text\n).*?(?=^```$)", lambda _: picture(), page, count=1, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
