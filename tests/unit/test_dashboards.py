"""The dashboards of deploy/grafana/ are what Grafana's model of a dashboard has room for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
FILES = sorted(FOLDER.glob("*/*.json"))

plugins.register_default_plugins()


def not_kept(written: Any, modelled: Any, path: str = "") -> Iterator[str]:
    """Where a model that knows only its own fields lacks, or has otherwise, what was written."""
    if isinstance(written, dict) and isinstance(modelled, dict):
        for key, value in written.items():
            if key in modelled:
                yield from not_kept(value, modelled[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(written, list) and isinstance(modelled, list) and len(written) == len(modelled):
        for number, (one, other) in enumerate(zip(written, modelled, strict=True)):
            yield from not_kept(one, other, f"{path}[{number}]")
    elif written != modelled:
        yield path


def modelled(dashboard: dict[str, Any]) -> Any:
    """As Grafana's model has it: unknown keys are left out, wrong types refused or left out."""
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


@pytest.fixture(params=FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(request.param.read_text())
    return loaded


def test_a_dashboard_has_only_what_grafana_knows(dashboard: dict[str, Any]) -> None:
    assert list(not_kept(dashboard, modelled(dashboard))) == []


@pytest.mark.parametrize(
    "path", [("panels", 0), ("panels", 0, "options"), ("panels", 0, "targets", 0), ("templating",)]
)
def test_what_grafana_does_not_know_would_be_found(path: tuple[Any, ...]) -> None:
    dashboard = json.loads((FOLDER / "NoTranslation" / "services.json").read_text())
    place = dashboard
    for step in path:
        place = place[step]
    place["noSuchKey"] = 1
    assert len(list(not_kept(dashboard, modelled(dashboard)))) == 1


def test_every_query_is_sent_to_the_data_source_that_is_chosen(dashboard: dict[str, Any]) -> None:
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    for panel in dashboard["panels"]:
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_are_all_on_the_screen_and_none_covers_another(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in dashboard["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_a_dashboard_has_the_same_id_in_every_spelling() -> None:
    ids = {path.stem: set() for path in FILES}
    for path in FILES:
        ids[path.stem].add(json.loads(path.read_text())["uid"])
    assert len(ids) == 6
    assert all(len(found) == 1 for found in ids.values())
    assert len(set.union(*ids.values())) == len(ids)
