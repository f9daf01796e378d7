"""How Prometheus spells OpenTelemetry's names: ``otlp.translation_strategy`` of its configuration, and the same choice in
the Collector's exporters.

What is written once, in OpenTelemetry's own names, is PromQL as it is for NoTranslation, by one convention: names with dots
are in double quotes, values in single ones, and a selector begins with its metric.

    sum by (job, "server.port") (rate({"wirespan.exchange.io", "network.io.direction"='transmit'}[5m]))

The rules are those of github.com/prometheus/otlptranslator 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from support.telemetry_page import metadata
from wirespan.service.emitted import EMITTERS

#: of a histogram with explicit bounds Prometheus makes three
HISTOGRAM_PARTS = ("bucket", "count", "sum")

_UNITS = {"s": "seconds", "By": "bytes"}

_NAMES = re.compile(
    r'(?P<template>\$labels )"(?P<field>[^"]+)"'  # {{ index $labels "server.port" }}
    r'|\{"(?P<metric>[^"]+)"(?:(?P<comma>, )|(?P<end>\}))?'
    r'|"(?P<label>[^"]+)"'
)
_LEGEND = re.compile(r"\{\{([^}]+)\}\}")


@dataclass(frozen=True)
class Facts:
    """unit: UCUM. type: as in metadata.yaml."""

    unit: str
    type: str


@cache
def emitted_metrics() -> dict[str, Facts]:
    """Every metric of the metadata.yaml files by name, those of exchanges and the agent's own."""
    return {name: Facts(facts["unit"], facts["type"]) for name, facts in _all_metrics()}


def _all_metrics() -> Iterator[tuple[str, dict[str, str]]]:
    for folder in EMITTERS:
        for section, content in metadata(folder).items():
            if section.endswith("metrics"):
                yield from content.items()


def metric_of(name: str) -> str:
    """The metric that a name of NoTranslation is of: a part of a histogram, or the metric itself."""
    metric, _, part = name.rpartition("_")
    facts = emitted_metrics().get(metric)
    return metric if facts is not None and facts.type == "histogram" and part in HISTOGRAM_PARTS else name


@dataclass(frozen=True)
class Spelling:
    """One of Prometheus' translation strategies."""

    strategy: str
    escapes: bool
    has_suffixes: bool

    def label(self, name: str) -> str:
        return re.sub(r"\W", "_", name) if self.escapes else name

    def metric(self, name: str) -> str:
        """A metric that wirespan does not emit stays as it is, such as ``target_info``."""
        metric = metric_of(name)
        if metric != name:
            return self.metric(metric) + name.removeprefix(metric)
        facts = emitted_metrics().get(name)
        if facts is None:
            return name
        tokens = re.split(r"[^a-zA-Z0-9:]+", name)
        suffixes = list(self._suffixes(facts, tokens)) if self.has_suffixes else []
        if not self.escapes:
            return "_".join([name, *suffixes])
        return "_".join([*tokens, *suffixes])

    def _suffixes(self, facts: Facts, tokens: list[str]) -> Iterator[str]:
        if facts.unit == "1":
            yield from ["ratio"] if facts.type == "gauge" else []
            return
        unit = "" if "{" in facts.unit else _UNITS[facts.unit]
        # Without escaping only a unit at the end counts as being there.
        if unit and unit not in (tokens if self.escapes else tokens[-1:]):
            yield unit
        if facts.type == "sum":
            yield "total"

    def text(self, text: str) -> str:
        """An expression in OpenTelemetry's names, or a file of rules or their tests, in this spelling."""
        return _NAMES.sub(self._name, text)

    def _name(self, found: re.Match[str]) -> str:
        if found["template"]:
            return f'{found["template"]}"{self.label(found["field"])}"'
        if found["label"]:
            return self.label(found["label"]) if self.escapes else found[0]
        metric = self.metric(found["metric"])
        if self.escapes:
            return metric if found["end"] else f"{metric}{{"
        return f'{{"{metric}"{found["comma"] or found["end"] or ""}'

    def legend(self, text: str) -> str:
        """Of a dashboard's series: ``{{server.port}}``."""
        return _LEGEND.sub(lambda name: f"{{{{{self.label(name[1])}}}}}", text)


SPELLINGS = (
    Spelling("UnderscoreEscapingWithSuffixes", escapes=True, has_suffixes=True),
    Spelling("UnderscoreEscapingWithoutSuffixes", escapes=True, has_suffixes=False),
    Spelling("NoUTF8EscapingWithSuffixes", escapes=False, has_suffixes=True),
    Spelling("NoTranslation", escapes=False, has_suffixes=False),
)
