"""Dashboards of Grafana, laid out from deploy/grafana/dashboards.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from support.spellings import Spelling

SOURCE = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards.yaml"

#: of Grafana 10.4; later ones take it
SCHEMA_VERSION = 39
_WIDTH, _PANEL_WIDTH, _PANEL_HEIGHT = 24, 8, 8
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

#: what a type of panel has beside title, place and queries
_OPTIONS: Mapping[str, Any] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value"},
    "table": {"showHeader": True, "sortBy": [{"displayName": "Value", "desc": True}]},
    "heatmap": {"calculate": False, "cellGap": 1, "yAxis": {"axisPlacement": "left", "unit": "s"}},
}
_CUSTOM: Mapping[str, Any] = {
    "timeseries": {"axisSoftMin": 0, "fillOpacity": 5, "showPoints": "never"},
    "stat": {}, "table": {}, "heatmap": {},
}  # fmt: skip
_INSTANT = ("stat", "table")


def sources() -> dict[str, Any]:
    """Each dashboard by its name, as it is written."""
    loaded: dict[str, Any] = yaml.safe_load(SOURCE.read_text())
    return loaded


def dashboards(spelling: Spelling) -> Iterator[tuple[str, str]]:
    """Name and JSON of each."""
    for name, source in sources().items():
        yield name, json.dumps(_dashboard(name, source, spelling), indent=1, ensure_ascii=False) + "\n"


def expressions(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Title of the panel and PromQL of each query of a dashboard as Grafana has it."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def _dashboard(name: str, source: Mapping[str, Any], spelling: Spelling) -> dict[str, Any]:
    return {
        "uid": f"wirespan-{name}",
        "title": source["title"],
        "description": source["description"],
        "tags": ["wirespan"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"title": "wirespan", "type": "dashboards", "tags": ["wirespan"], "asDropdown": True,
                   "keepTime": True, "includeVars": True, "icon": "external link", "tooltip": "", "targetBlank": False}],
        "templating": {"list": [_VARIABLES["datasource"], *(_variable(one, spelling) for one in source["variables"])]},
        "annotations": {"list": []},
        "panels": list(_panels(source["panels"], spelling)),
    }  # fmt: skip


_VARIABLES: Mapping[str, Any] = {
    "datasource": {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
    "job": {
        "name": "job", "label": "Service", "type": "query", "datasource": _DATASOURCE,
        "query": {"query": 'label_values({"wirespan.exchange.duration"}, job)', "refId": "job"},
        "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
    },
    "kind": {
        "name": "kind", "label": "End", "type": "custom",
        "query": "server : SPAN_KIND_SERVER, client : SPAN_KIND_CLIENT",
        "current": {"text": "server", "value": "SPAN_KIND_SERVER"},
        "options": [{"text": "server", "value": "SPAN_KIND_SERVER", "selected": True},
                    {"text": "client", "value": "SPAN_KIND_CLIENT", "selected": False}],
    },
}  # fmt: skip


def _variable(name: str, spelling: Spelling) -> dict[str, Any]:
    variable = dict(_VARIABLES[name])
    if variable["type"] == "query":
        query = variable["query"]
        variable["query"] = {**query, "query": spelling.text(query["query"])}
        variable["definition"] = variable["query"]["query"]
    return variable


def _panels(sources: Sequence[Mapping[str, Any]], spelling: Spelling) -> Iterator[dict[str, Any]]:
    """From left to right, and from the top down."""
    x = y = 0
    for number, source in enumerate(sources, 1):
        width = source.get("width", _PANEL_WIDTH)
        if x + width > _WIDTH:
            x, y = 0, y + _PANEL_HEIGHT
        place = {"x": x, "y": y, "w": width, "h": _PANEL_HEIGHT}
        yield _panel(number, source, place, spelling)
        x += width


def _panel(number: int, source: Mapping[str, Any], place: Mapping[str, int], spelling: Spelling) -> dict[str, Any]:
    kind = source.get("type", "timeseries")
    panel: dict[str, Any] = {"id": number, "type": kind, "title": source["title"]}
    if "description" in source:
        panel["description"] = source["description"]
    return panel | {
        "gridPos": dict(place),
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": {"unit": source["unit"], "custom": _CUSTOM[kind]}, "overrides": []},
        "options": _OPTIONS[kind],
        "targets": [
            _target(chr(ord("A") + place), kind, legend, expression, spelling)
            for place, (legend, expression) in enumerate(source["queries"].items())
        ],
    }


def _target(reference: str, kind: str, legend: str, expression: str, spelling: Spelling) -> dict[str, Any]:
    return {
        "refId": reference,
        "datasource": _DATASOURCE,
        "expr": spelling.text(expression.strip()),
        "legendFormat": spelling.legend(str(legend)),
        "format": "table" if kind == "table" else "time_series",
        "instant": kind in _INSTANT,
        "range": kind not in _INSTANT,
    }
