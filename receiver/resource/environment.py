"""What a process declares about itself: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES of its environment.

Of these two the values are kept; nothing else of an environment, where secrets are common. Whether it configures an
exporter of spans is looked at too, which says that an SDK may be there, not that it is. The format is that of
the OpenTelemetry specification (Resource SDK, "Specifying resource information via an environment variable"):
``key=value,key=value``, where ``,``, ``=`` and anything else may be percent-encoded. An entry that cannot be decoded is
left out, as most SDKs do, and the others count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

#: bounds of what one process can put into a resource; lengths in characters
ATTRIBUTES_LIMIT: Final = 128
KEY_LIMIT: Final = 256
VALUE_LIMIT: Final = 1024


@dataclass(frozen=True, slots=True)
class Declaration:
    """attributes: what the process says of itself. ignored: entries that were malformed or beyond a bound."""

    attributes: dict[str, str]
    ignored: int


def declared_attributes(environment: bytes) -> Declaration:
    """The attributes in an environment whose entries end with a zero byte."""
    attributes: dict[str, str] = {}
    ignored = 0
    for entry in _variable(environment, b"OTEL_RESOURCE_ATTRIBUTES").split(b","):
        if not entry.strip():
            continue
        attribute = _attribute(entry)
        if attribute is None or (attribute[0] not in attributes and len(attributes) == ATTRIBUTES_LIMIT):
            ignored += 1
        else:
            attributes[attribute[0]] = attribute[1]
    name = _variable(environment, b"OTEL_SERVICE_NAME").strip()
    if name:
        decoded = _text(name, VALUE_LIMIT)
        if decoded is None:
            ignored += 1
        else:
            attributes["service.name"] = decoded
    return Declaration(attributes, ignored)


def declares_exporter(environment: bytes) -> bool:
    """Whether an environment configures an OTLP exporter of spans, or OpenTelemetry's agent for Java
    (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/)."""
    if _variable(environment, b"OTEL_SDK_DISABLED").strip().lower() == b"true":
        return False
    exporter = _variable(environment, b"OTEL_TRACES_EXPORTER").strip()
    if exporter:
        return b"otlp" in exporter
    if any(_variable(environment, name) for name in _ENDPOINTS):
        return True
    options = b"".join(_variable(environment, name) for name in (b"JAVA_TOOL_OPTIONS", b"NODE_OPTIONS"))
    return b"opentelemetry" in options


_ENDPOINTS: Final = (b"OTEL_EXPORTER_OTLP_ENDPOINT", b"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def _variable(environment: bytes, name: bytes) -> bytes:
    """The value of the first entry of this name, as getenv(3) finds it; empty if there is none."""
    entries = b"\0" + environment
    begin = entries.find(b"\0" + name + b"=")
    if begin < 0:
        return b""
    begin += len(name) + 2
    end = entries.find(b"\0", begin)
    return entries[begin:end] if end >= 0 else b""


def _attribute(entry: bytes) -> tuple[str, str] | None:
    raw_key, separator, raw_value = entry.partition(b"=")
    key = _text(unquote_to_bytes(raw_key.strip()), KEY_LIMIT)
    value = _text(unquote_to_bytes(raw_value.strip()), VALUE_LIMIT)
    return (key, value) if separator and key and value else None


def _text(value: bytes, limit: int) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) <= limit else None
