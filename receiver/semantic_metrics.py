"""The durations that the semantic conventions name, and of which spans they are: a table, in ``metadata.yaml``.

A metric is of one span kind, and of the spans that have an attribute; its own attributes are some of the span's. Addresses
are not among them: of peers that nobody knows there may be any number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any, Final, TypeAlias

import yaml

from ..pipeline.spans import AttributeValue, SpanKind

#: series of a metric for each resource; those with names that clients choose
SERIES_OF_A_RESOURCE: Final = 1_000
NAMES_OF_A_RESOURCE: Final = 100

_CHOSEN_BY_CLIENTS: Final = "dns.question.name"
#: present and false on spans whose turns are no requests
_DELIMITED: Final = "wirespan.exchange.delimited"

Attributes: TypeAlias = tuple[tuple[str, AttributeValue], ...]
OVERFLOW_ATTRIBUTES: Final[Attributes] = (("otel.metric.overflow", True),)


@dataclass(frozen=True, slots=True)
class SemanticMetric:
    """of: an attribute and its value that tell the spans of this metric; value None: any. unknown: what an attribute is
    where the span has none. bounds: of buckets, s, as the conventions advise."""

    name: str
    kind: SpanKind
    of: tuple[str, AttributeValue | None]
    attributes: tuple[str, ...]
    unknown: Mapping[str, AttributeValue]
    bounds: tuple[float, ...]

    @property
    def limit(self) -> int:
        """Series for each resource, the overflow apart."""
        return NAMES_OF_A_RESOURCE if _CHOSEN_BY_CLIENTS in self.attributes else SERIES_OF_A_RESOURCE

    def counts(self, kind: SpanKind, span: Mapping[str, AttributeValue]) -> bool:
        name, value = self.of
        return kind is self.kind and name in span and value in (None, span[name])

    def attributes_of(self, span: Mapping[str, AttributeValue]) -> Attributes:
        said = {**self.unknown, **span}
        return tuple((name, said[name]) for name in self.attributes if name in said)


def metric_of(kind: SpanKind, span: Mapping[str, AttributeValue]) -> SemanticMetric | None:
    """The metric that a span with these attributes counts in, if any."""
    if span.get(_DELIMITED) is False:
        return None
    return next((metric for metric in semantic_metrics() if metric.counts(kind, span)), None)


@cache
def semantic_metrics() -> tuple[SemanticMetric, ...]:
    return tuple(_metrics(documented()["semantic_metrics"]))


@cache
def all_bounds() -> tuple[float, ...]:
    """The bounds of all of them, s: counted by these, a duration falls into a bucket of each metric."""
    return tuple(sorted(set(chain.from_iterable(metric.bounds for metric in semantic_metrics()))))


def _metrics(table: Mapping[str, Any]) -> Iterator[SemanticMetric]:
    for name, facts in table.items():
        ((attribute, value),) = facts["of"].items()
        yield SemanticMetric(
            name,
            SpanKind[facts["kind"]],
            (attribute, value),
            tuple(facts["attributes"]),
            facts.get("unknown", {}),
            tuple(map(float, facts["boundaries"])),
        )


@cache
def documented() -> Mapping[str, Any]:
    """What the receiver emits: its metadata.yaml."""
    loaded: dict[str, Any] = yaml.safe_load((files("wirespan") / "receiver" / "metadata.yaml").read_text("utf-8"))
    return loaded
