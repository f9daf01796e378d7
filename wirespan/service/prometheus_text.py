"""Own metrics in Prometheus' text format 0.0.4, spelled as a scrape of a Collector shows its own.

That is: escaped by underscores and, unless it is told otherwise, without the suffixes for types and units. Client libraries for
Python append `_total` to each counter, so dashboards made for Collectors would find nothing.
(https://prometheus.io/docs/instrumenting/exposition_formats, https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

from .. import __version__
from ..pipeline.counters import CounterKey, Counters
from .emitted import SCOPE, MetricFacts, documented_metrics
from .settings import PrometheusSettings

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

Values: TypeAlias = Mapping[CounterKey, int] | Mapping[CounterKey, float]
_Type: TypeAlias = Literal["counter", "gauge"]

_UNITS: Final = {"s": "seconds", "By": "bytes"}
_SEPARATORS: Final = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_OF_A_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class PrometheusText:
    """What a scrape gets. resource: for ``target_info``."""

    def __init__(self, counters: Counters, settings: PrometheusSettings, resource: Mapping[str, str]) -> None:
        self._counters = counters
        self._settings = settings
        self._resource = resource
        self._scope: dict[str, str] = {}
        if not settings.without_scope_info:
            self._scope = {"otel.scope.name": SCOPE, "otel.scope.version": __version__}
        self._facts = documented_metrics()

    def text(self) -> str:
        """All that is counted, read now."""
        counters = self._counters
        families = [
            *self._families(counters.snapshot(), "counter"),
            *self._families(counters.durations(), "counter"),
            *self._families(counters.gauges(), "gauge"),
            self._family("target_info", "gauge", "Target metadata", [_sample("target_info", self._resource, 1)]),
        ]
        return "".join(sorted(families))

    def _families(self, values: Values, type_: _Type) -> Iterator[str]:
        samples: dict[str, list[str]] = {}
        for (name, attributes), value in values.items():
            spelled = self._spelled(name, type_)
            samples.setdefault(name, []).append(_sample(spelled, self._scope | dict(attributes), value))
        for name, lines in samples.items():
            yield self._family(self._spelled(name, type_), type_, self._facts_of(name).description, sorted(lines))

    def _family(self, name: str, type_: _Type, description: str, lines: list[str]) -> str:
        described = description.replace("\\", r"\\").replace("\n", r"\n")
        return f"# HELP {name} {described}\n# TYPE {name} {type_}\n{''.join(lines)}"

    def _spelled(self, name: str, type_: _Type) -> str:
        parts = _SEPARATORS.split(name)
        unit = self._facts_of(name).unit
        if not self._settings.without_units:
            suffix = "ratio" if unit == "1" and type_ == "gauge" else _UNITS.get(unit, "")
            parts += [suffix] if suffix and suffix not in parts else []
        if not self._settings.without_type_suffix and type_ == "counter" and unit != "1":
            parts.append("total")
        return "_".join(parts)

    def _facts_of(self, name: str) -> MetricFacts:
        """Nothing is known of what a plug-in counts."""
        return self._facts.get(name, MetricFacts())


def _sample(name: str, attributes: Mapping[str, str], value: float) -> str:
    labels = ",".join(
        f'{_NOT_OF_A_LABEL.sub("_", key)}="{str(given).translate(_ESCAPES)}"' for key, given in attributes.items()
    )
    return f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n"
