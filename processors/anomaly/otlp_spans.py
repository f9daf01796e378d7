"""What a model wants to know of the spans in a request of OTLP, be it a message of protobuf or an object of JSON.

Both readers say the same, in the same order, so that what was found out of a span can be written where it stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from ...pipeline.spans import SpanKind
from .features import FEATURES
from .keys import Identity, template

Attributes: TypeAlias = dict[str, Any]

_UNKNOWN_SERVICE: Final = "unknown_service"
_PROTOCOL: Final = "network.protocol.name"
#: whose presence tells the protocol, and what it is called; None: what the attribute says
_TELL_PROTOCOL: Final[Mapping[str, str | None]] = {
    "http.request.method": "http",
    "http.method": "http",
    "db.system.name": None,
    "db.system": None,
    "rpc.system": None,
    "messaging.system": None,
}
_PROBABILITY: Final = "wirespan.sampling.probability"
_STATUSES: Final = ("http.response.status_code", "http.status_code")
#: of HTTP, from which on a server has failed
_SERVER_ERROR: Final = 500
_STATUS_ERROR: Final = 2
#: where old and new conventions have the port of the server, by kind
_PORTS: Final[Mapping[int, tuple[str, ...]]] = {
    SpanKind.SERVER: ("server.port", "net.host.port"),
    SpanKind.CLIENT: ("server.port", "net.peer.port"),
}
COLUMNS: Final = tuple(feature.column for feature in FEATURES)
_SCALES: Final = tuple(1e6 if feature.unit == "s" else 1.0 for feature in FEATURES)
WANTED: Final = frozenset(
    [*filter(None, COLUMNS), _PROTOCOL, *_TELL_PROTOCOL, _PROBABILITY, "error.type", *_STATUSES]
    + [name for names in _PORTS.values() for name in names]
)
_ALL: Final = 1 << 56

#: JSON may have the names of enums
_KINDS: Final[Mapping[Any, int]] = {f"SPAN_KIND_{kind.name}": int(kind) for kind in SpanKind}
_HALF: Final = (1 << 64) - 1
_RESOURCE: Final = frozenset({"service.name", "service.namespace"})
_JSON_VALUES: Final = ("stringValue", "intValue", "doubleValue", "boolValue")


class SpanFacts(NamedTuple):
    """start, end: ns. trace: both halves. digits: of its id in hex. parent: 0 of a root. weight: how many spans it stands for."""

    identity: Identity
    trace: tuple[int, int]
    digits: int
    span: int
    parent: int
    start: int
    end: int
    error: bool
    weight: float
    attributes: Attributes

    def steps(self) -> list[float]:
        """Of each feature, NaN where the span does not say. Before the trace is known there is no time of its own."""
        found = [_number(self.attributes.get(name)) * scale for name, scale in zip(COLUMNS, _SCALES, strict=True)]
        found[0] = (self.end - self.start) / 1000 if self.end >= self.start > 0 else float("nan")
        return found


def _number(value: Any) -> float:
    """NaN for what is none: anybody may have given the attribute any value."""
    return float(value) if isinstance(value, (int, float)) and abs(value) < _ALL else math.nan


def of_messages(request: Any) -> Iterator[tuple[Any, SpanFacts]]:
    """The spans of an ``ExportTraceServiceRequest``, each with what is known of it."""
    for resource_spans in request.resource_spans:
        service = service_of(_of_key_values(resource_spans.resource.attributes, _RESOURCE))
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                attributes = _of_key_values(span.attributes, WANTED)
                yield (
                    span,
                    SpanFacts(
                        identity_of(service, span.kind, span.name, attributes),
                        _halves(int.from_bytes(span.trace_id[:16], "big")),
                        2 * len(span.trace_id[:16]),
                        int.from_bytes(span.span_id[:8], "big"),
                        int.from_bytes(span.parent_span_id[:8], "big"),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        span.status.code == _STATUS_ERROR or _has_failed(attributes),
                        weight_of(attributes, span.trace_state),
                        attributes,
                    ),
                )


def of_json(request: Any) -> Iterator[tuple[Any, SpanFacts]]:
    """The same of OTLP JSON. Raises ValueError, TypeError, KeyError or AttributeError for what is none."""
    for resource_spans in request.get("resourceSpans", ()):
        resource = resource_spans.get("resource", {}).get("attributes", ())
        service = service_of(_of_json_values(resource, _RESOURCE))
        for scope_spans in resource_spans.get("scopeSpans", ()):
            for span in scope_spans.get("spans", ()):
                kind = span.get("kind", 0)
                attributes = _of_json_values(span.get("attributes", ()), WANTED)
                code = span.get("status", {}).get("code", 0)
                yield (
                    span,
                    SpanFacts(
                        identity_of(service, _KINDS.get(kind, kind), span.get("name", ""), attributes),
                        _halves(int(span["traceId"][:32], 16)),
                        len(span["traceId"][:32]),
                        int(span["spanId"][:16], 16) & _HALF,
                        int((span.get("parentSpanId") or "0")[:16], 16) & _HALF,
                        int(span.get("startTimeUnixNano", 0)),
                        int(span.get("endTimeUnixNano", 0)),
                        code in (_STATUS_ERROR, "STATUS_CODE_ERROR") or _has_failed(attributes),
                        weight_of(attributes, span.get("traceState", "")),
                        attributes,
                    ),
                )


def identity_of(service: str, kind: int, name: str, attributes: Attributes) -> Identity:
    return Identity(service, kind, _port(kind, attributes), protocol_of(attributes), template(name))


def protocol_of(attributes: Mapping[str, Any]) -> str:
    """What the attributes say that it is, or empty."""
    if _PROTOCOL in attributes:
        return str(attributes[_PROTOCOL])
    for name, protocol in _TELL_PROTOCOL.items():
        if name in attributes:
            return protocol or str(attributes[name])
    return ""


def weight_of(attributes: Mapping[str, Any], trace_state: str) -> float:
    """One over the probability with which a span like this was kept."""
    probability = attributes.get(_PROBABILITY)
    if probability is None and "th:" in trace_state:
        # https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
        digits = trace_state.partition("th:")[2].partition(";")[0].partition(",")[0][:14]
        try:
            probability = 1 - int(digits.ljust(14, "0"), 16) / _ALL
        except ValueError:
            return 1.0
    return 1.0 / probability if isinstance(probability, float) and 1e-6 < probability < 1 else 1.0


def _port(kind: int, attributes: Attributes) -> int:
    for name in _PORTS.get(kind, ()):
        if isinstance(attributes.get(name), int):
            return int(attributes[name]) & 0xFFFF
    return 0


def _has_failed(attributes: Attributes) -> bool:
    status = next((attributes[name] for name in _STATUSES if name in attributes), 0)
    return "error.type" in attributes or (isinstance(status, int) and status >= _SERVER_ERROR)


def _halves(trace: int) -> tuple[int, int]:
    return trace >> 64 & _HALF, trace & _HALF


def service_of(attributes: Mapping[str, Any]) -> str:
    name, namespace = attributes.get("service.name", _UNKNOWN_SERVICE), attributes.get("service.namespace")
    return f"{namespace}/{name}" if namespace else str(name)


def _of_key_values(key_values: Iterable[Any], wanted: frozenset[str]) -> Attributes:
    found: Attributes = {}
    for key_value in key_values:
        if key_value.key in wanted:
            kind = key_value.value.WhichOneof("value")
            if kind is not None:
                found[key_value.key] = getattr(key_value.value, kind)
    return found


def _of_json_values(key_values: Iterable[Any], wanted: frozenset[str]) -> Attributes:
    found: Attributes = {}
    for key_value in key_values:
        key = key_value["key"]
        if key in wanted:
            value = key_value.get("value", {})
            for kind in _JSON_VALUES:
                if kind in value:
                    found[key] = int(value[kind]) if kind == "intValue" else value[kind]
    return found
