"""The JSON Schema of configurations, for editors: made of the models that configurations are checked against.

``python -m wirespan.service.schema`` writes ``config/schema.json``. What only code can check (references between pipelines and
components, keys that exclude each other) is not in it. Of components that do not come with wirespan it allows anything.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from ..pipeline.component import Factory, Kind
from .config import KINDS
from .registry import BUILT_IN, Registry
from .settings import ServiceSettings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: what stands for a value of any type
_REFERENCE: Final = {"type": "string", "pattern": r"\$\{(env:|file:)?[^{}]+\}"}
_TYPED: Final = ("integer", "number", "boolean")


def schema_text(registry: Registry | None = None) -> str:
    return json.dumps(schema(registry or Registry(list)), indent=2, ensure_ascii=False) + "\n"


def schema(registry: Registry) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {f"{kind}s": _section(kind, registry, definitions) for kind in KINDS}
    properties["service"] = _optional(_defined("service", ServiceSettings, definitions))
    return {
        "$schema": DIALECT,
        "title": "wirespan",
        "description": "A configuration of wirespan: components by id, and pipelines that connect them.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _section(kind: Kind, registry: Registry, definitions: dict[str, Any]) -> dict[str, Any]:
    """Components by id, each by the model of its type."""
    patterns: dict[str, Any] = {}
    for type_name in sorted(BUILT_IN[kind]):
        factory = registry.find(kind, type_name)
        assert factory is not None
        reference = _optional(_defined(f"{kind}.{type_name}", factory.config, definitions))
        patterns |= {f"^{name}(/.+)?$": reference for name in _names(factory)}
    return _optional({"type": "object", "patternProperties": patterns})


def _names(factory: Factory) -> tuple[str, ...]:
    return (factory.name, *factory.deprecated_names)


def _defined(name: str, model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, str]:
    """A reference to a model's schema, which goes with those that it refers to among the definitions."""
    made = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    for nested, content in made.pop("$defs", {}).items():
        definitions[f"{name}.{nested}"] = _open(content)
    definitions[name] = _open(made)
    return {"$ref": f"#/$defs/{name}"}


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    """An empty key means the defaults."""
    return {"anyOf": [schema, {"type": "null"}]}


def _open(schema: Any) -> Any:
    """The schema, but what is no free text may be a reference to a variable or a file, too."""
    if isinstance(schema, list):
        return [_open(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    opened = {key: value if key in ("default", "enum", "required") else _open(value) for key, value in schema.items()}
    if schema.get("type") == "string" and isinstance(schema.get("default"), float):
        opened["default"] = _duration(schema["default"])
    if schema.get("type") in _TYPED or {"enum", "const"} & schema.keys() or isinstance(schema.get("pattern"), str):
        kept = {key: opened.pop(key) for key in ("title", "description", "default") if key in opened}
        return {**kept, "anyOf": [opened, _REFERENCE]}
    return opened


def _duration(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"


if __name__ == "__main__":
    Path(str(files("wirespan") / "config" / "schema.json")).write_text(schema_text(), encoding="utf-8")
