"""What a backend makes of spans: the calls that a service graph counts, and whether a trace is one tree.

As the Collector's service_graph connector and Tempo do it: a CLIENT span and a SERVER span of one trace whose parent it
is are one call. A SERVER span that is a root is a call from outside of what is traced; a CLIENT span without a
SERVER span is no call.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from support.spans import Span

OUTSIDE = "user"


def calls(spans: Iterable[Span]) -> Counter[tuple[str, str]]:
    """How often which service called which. A second SERVER span of one CLIENT span would be a second call."""
    spans = list(spans)
    clients = {(span["trace_id"], span["span_id"]): span for span in spans if span["kind"] == "CLIENT"}
    found: Counter[tuple[str, str]] = Counter()
    for span in spans:
        if span["kind"] == "SERVER":
            client = clients.get((span["trace_id"], span["parent_span_id"]))
            if client is not None:
                found[service(client), service(span)] += 1
            elif not span["parent_span_id"]:
                found[OUTSIDE, service(span)] += 1
            else:
                found["missing", service(span)] += 1
    return found


def service(span: Span) -> str:
    return str(span["resource"]["service.name"])


def trees(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans of each trace. AssertionError unless they are one tree: one root, every other's parent among them."""
    traces: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        traces[span["trace_id"]].append(span)
    for trace in traces.values():
        ids = [span["span_id"] for span in trace]
        assert len(set(ids)) == len(ids), trace
        roots = [span for span in trace if span["parent_span_id"] not in ids]
        assert len(roots) == 1, shape(trace)
        assert roots[0]["parent_span_id"] == "", shape(trace)
    return list(traces.values())


def shape(trace: Sequence[Span]) -> list[tuple[str, str, str, str]]:
    """What matters of a trace, for messages."""
    return [(service(span), span["kind"], span["span_id"], span["parent_span_id"]) for span in trace]
