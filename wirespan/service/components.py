"""``wirespan components``: what can be configured, in the form of the Collector's command of that name."""

from __future__ import annotations

from typing import Any

import yaml

from .. import __version__
from ..pipeline.component import Factory
from .config import KINDS, SIGNALS
from .registry import Registry


def components_text(registry: Registry) -> str:
    """YAML: each kind of component, with the signals that it supports and how stable that is."""
    described: dict[str, Any] = {
        "buildinfo": {
            "command": "wirespan",
            "description": "OpenTelemetry-native eBPF receiver",
            "version": __version__,
        }
    }
    for kind in KINDS:
        described[f"{kind}s"] = [_described(factory) for factory in registry.factories(kind)]
    return yaml.safe_dump(described, sort_keys=False)


def _described(factory: Factory) -> dict[str, Any]:
    kinds = ["extension"] if factory.kind == "extension" else [s for s in SIGNALS if s in factory.signals]
    stability = dict.fromkeys(kinds, factory.stability)
    return {"name": factory.name, "module": _module(factory), "stability": stability}


def _module(factory: Factory) -> str:
    """Where it is made, and of ours the version."""
    module = factory.create.__module__
    return f"{module} {__version__}" if module.startswith("wirespan.") else module
