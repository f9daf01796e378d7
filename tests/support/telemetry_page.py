"""The tables of docs/telemetry.md, made of the metadata.yaml files. ``python tests/support/telemetry_page.py`` renews
the page: what stands between ``<!-- generated: NAME -->`` and ``<!-- end -->`` is replaced, the rest is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from wirespan.service.emitted import EMITTERS

PAGE = Path(__file__).parents[2] / "docs" / "telemetry.md"

_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def metadata(folder: str) -> dict[str, Any]:
    """The metadata.yaml of a folder of the package. Not to be changed."""
    loaded: dict[str, Any] = yaml.safe_load((files("wirespan") / folder / "metadata.yaml").read_text())
    return loaded


def renewed(page: str) -> str:
    """The page with its generated parts made anew."""
    return _BLOCK.sub(lambda block: f"{block[1]}{_TABLES[block[2]]()}{block[3]}", page)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _span_names() -> str:
    names = metadata("receiver")["span_names"]
    return _table(("protocol", "span name"), names.items())


def _span_attributes() -> str:
    attributes = {**metadata("receiver")["span_attributes"], **metadata("processors/anomaly")["span_attributes"]}
    rows = ((f"`{name}`", _typed(facts), _where(facts), _described(facts)) for name, facts in attributes.items())
    return _table(("attribute", "type", "on", "meaning"), rows)


def _error_types() -> str:
    values = metadata("receiver")["span_attributes"]["error.type"]["values"]
    return _table(("`error.type`", "meaning"), ((f"`{value}`", meaning) for value, meaning in values.items()))


def _resource_attributes() -> str:
    attributes = metadata("receiver")["resource_attributes"]
    rows = ((f"`{name}`", facts["type"], facts["description"]) for name, facts in attributes.items())
    return _table(("attribute", "type", "meaning"), rows)


def _metrics() -> str:
    metrics = (metric for folder in EMITTERS for metric in metadata(folder)["metrics"].items())
    rows = (row for name, facts in metrics for row in _metric_rows(name, facts))
    return _table(("metric", "unit", "type", "meaning"), rows)


def _k8s_attributes() -> str:
    found = metadata("processors/k8s_attributes")
    kinds = (("resource", found["resource_attributes"]), ("span", found["span_attributes"]))
    rows = (
        (f"`{name}`", facts["type"], kind, facts["description"])
        for kind, attributes in kinds
        for name, facts in attributes.items()
    )
    return _table(("attribute", "type", "of", "meaning"), rows)


def _exchange_metrics() -> str:
    rows = (
        row for name, facts in metadata("receiver")["exchange_metrics"].items() for row in _metric_rows(name, facts)
    )
    return _table(("metric", "unit", "type", "meaning"), rows)


def _semantic_metrics() -> str:
    rows = (
        (f"`{name}`", facts["kind"], _listed(facts["attributes"]), _listed(facts["boundaries"]))
        for name, facts in metadata("receiver")["semantic_metrics"].items()
    )
    return _table(("metric", "of spans", "attributes", "boundaries of buckets, s"), rows)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(f"`{value}`" if isinstance(value, str) else str(value) for value in values)


def _metric_scope_attributes() -> str:
    return _table(("attribute", "type", "meaning"), _attribute_rows(metadata("receiver")["metric_scope_attributes"]))


def _exchange_metric_attributes() -> str:
    return _table(("attribute", "type", "meaning"), _attribute_rows(metadata("receiver")["exchange_metric_attributes"]))


def _attribute_rows(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """An attribute, and below it each value that needs a word."""
    for name, facts in attributes.items():
        yield f"`{name}`", _typed(facts), _described(facts)
        values = facts.get("values")
        if isinstance(values, Mapping):
            for value, meaning in values.items():
                yield f"– `{value}`", "", meaning


def _metric_rows(name: str, facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """A metric, and below it each value of each of its attributes."""
    exporters = ", ".join(f"`{exporter}`" for exporter in facts.get("exporters", ()))
    origin = f" By attribute `exporter`, of {exporters}." if exporters else ""
    yield f"`{name}`", f"`{facts['unit']}`", facts["type"], facts["description"] + origin
    for attribute, values in facts.get("attributes", {}).items():
        for value, meaning in values.items():
            yield f"– `{attribute}={value}`", "", "", meaning


def _typed(facts: Mapping[str, Any]) -> str:
    return f"{facts['type']}, {facts['unit']}" if "unit" in facts else str(facts["type"])


def _where(facts: Mapping[str, Any]) -> str:
    return ", ".join(facts.get("protocols", []) + facts.get("kinds", [])) or "all"


def _described(facts: Mapping[str, Any]) -> str:
    values = facts.get("values")
    if "option" in facts:
        return f"Only with `{facts['option']}`. {facts['description']}"
    if not isinstance(values, list):
        return str(facts["description"])
    return f"{facts['description']} {'One of ' if len(values) > 1 else ''}`{'`, `'.join(values)}`."


_TABLES: Mapping[str, Callable[[], str]] = {
    "span_names": _span_names,
    "span_attributes": _span_attributes,
    "error_types": _error_types,
    "resource_attributes": _resource_attributes,
    "k8s_attributes": _k8s_attributes,
    "exchange_metrics": _exchange_metrics,
    "semantic_metrics": _semantic_metrics,
    "metric_scope_attributes": _metric_scope_attributes,
    "exchange_metric_attributes": _exchange_metric_attributes,
    "metrics": _metrics,
}

if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
