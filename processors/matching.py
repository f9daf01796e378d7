"""``include`` and ``exclude`` of the processor ``attributes``: which spans, metrics and log records it is about.

What a resource and a scope say is asked once for all that is of them, and of columns once a distinct resource and fragment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from ..pipeline.component import ComponentConfig, Signal
from .attribute_actions import SetValue
from .patterns import compiled, matcher
from .values import Attributes, Value, as_text, plain_number

Text: TypeAlias = Callable[[str], bool]

#: the Collector's words for what has no service.name
NO_SERVICE: Final = "<nil-service-name>"
#: by number, opentelemetry.proto.trace.v1.Span.SpanKind
SPAN_KINDS: Final = tuple(
    f"SPAN_KIND_{name}" for name in ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
)
_OF: Final[Mapping[Signal, frozenset[str]]] = {
    "traces": frozenset({"services", "span_names", "span_kinds", "attributes", "resources", "libraries"}),
    "metrics": frozenset({"metric_names", "resources"}),
    "logs": frozenset(
        {"log_bodies", "log_severity_texts", "log_severity_number", "attributes", "resources", "libraries"}
    ),
}


class AttributeMatch(ComponentConfig):
    """value: None: it only has to be there."""

    key: str = Field(min_length=1)
    value: SetValue | None = None


class LibraryMatch(ComponentConfig):
    """version: None: any."""

    name: str
    version: str | None = None


class SeverityMatch(ComponentConfig):
    min: int = Field(default=0, ge=0, le=24)
    match_undefined: bool = False


class RegexpSettings(ComponentConfig):
    """Of the Collector's cache of results; there is none here, and nothing to set."""

    cacheenabled: bool = False
    cachemaxnumentries: int = Field(default=0, ge=0)


class MatchSettings(ComponentConfig):
    """What is given has to match, all of it; of a list one entry, but for attributes and resources each."""

    match_type: Literal["strict", "regexp"]
    regexp: RegexpSettings = RegexpSettings()
    services: list[str] = Field(default_factory=list)
    span_names: list[str] = Field(default_factory=list)
    span_kinds: list[str] = Field(default_factory=list)
    metric_names: list[str] = Field(default_factory=list)
    log_bodies: list[str] = Field(default_factory=list)
    log_severity_texts: list[str] = Field(default_factory=list)
    log_severity_number: SeverityMatch | None = None
    attributes: list[AttributeMatch] = Field(default_factory=list)
    resources: list[AttributeMatch] = Field(default_factory=list)
    libraries: list[LibraryMatch] = Field(default_factory=list)

    @property
    def given(self) -> set[str]:
        return {name for name in frozenset().union(*_OF.values()) if getattr(self, name)}

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        if not self.given:
            raise ValueError(f"needs one of {', '.join(sorted(frozenset().union(*_OF.values())))}")
        problems = [*self._wrong_patterns()] if self.match_type == "regexp" else [*self._wrong_kinds()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _wrong_patterns(self) -> list[str]:
        problems = []
        for name in sorted(self.given - {"log_severity_number"}):
            for index, pattern in _patterns(getattr(self, name)):
                if not isinstance(pattern, str):
                    problems.append(f"{name}[{index}]: {pattern} is no text, as match_type regexp needs it")
                    continue
                try:
                    compiled(pattern)
                except ValueError as error:
                    problems.append(f'{name}[{index}]: "{pattern}" {error}')
        return problems

    def _wrong_kinds(self) -> list[str]:
        return [
            f"span_kinds: {kind} is not one of {', '.join(SPAN_KINDS[1:])}"
            for kind in self.span_kinds
            if kind not in SPAN_KINDS[1:]
        ]

    def misfit(self, signal: Signal) -> str | None:
        """What is not there to be matched in this signal."""
        wrong = sorted(self.given - _OF[signal])
        return f"{', '.join(wrong)} cannot be matched in {signal}" if wrong else None


def _patterns(entries: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """What is to be a pattern, with its index."""
    for index, entry in enumerate(entries):
        if isinstance(entry, AttributeMatch):
            found = [entry.value]
        else:
            found = [entry.name, entry.version] if isinstance(entry, LibraryMatch) else [entry]
        yield from ((index, pattern) for pattern in found if pattern is not None)


class AttributesMatch:
    """Whether attributes are there, with such values."""

    def __init__(self, settings: Sequence[AttributeMatch], match_type: str) -> None:
        self.by_key = [(entry.key, _value_match(entry.value, match_type)) for entry in settings]

    def __call__(self, attributes: Mapping[str, Value]) -> bool:
        return all(key in attributes and matches(attributes[key]) for key, matches in self.by_key)


def _value_match(wanted: Any, match_type: str) -> Callable[[Value], bool]:
    if wanted is None:
        return lambda value: True
    if match_type == "strict":
        expected = tuple(wanted) if isinstance(wanted, list) else wanted
        return lambda value: type(value) is type(expected) and repr(value) == repr(expected)
    found = matcher([wanted], match_type)
    return lambda value: isinstance(value, str | bool | int | float) and found(_matched_text(value))


def _matched_text(value: str | bool | int | float) -> str:
    return plain_number(value) if isinstance(value, float) else as_text(value)


class Match:
    """The settings, ready for use: each part says whether it, and what is not given of it, matches."""

    def __init__(self, settings: MatchSettings) -> None:
        kind = settings.match_type
        self._services = _texts(settings.services, kind)
        self._resources = AttributesMatch(settings.resources, kind)
        self._libraries = [
            (matcher([entry.name], kind), None if entry.version is None else matcher([entry.version], kind))
            for entry in settings.libraries
        ]
        self.names = _texts(settings.span_names or settings.metric_names, kind)
        self.kinds = _texts(settings.span_kinds, kind)
        self._bodies = _texts(settings.log_bodies, kind)
        self._severity_texts = _texts(settings.log_severity_texts, kind)
        self._severity = settings.log_severity_number
        self.attributes = AttributesMatch(settings.attributes, kind)

    def resource(self, attributes: Attributes) -> bool:
        if self._services is not None and not self._services(as_text(attributes.get("service.name", NO_SERVICE))):
            return False
        return self._resources(attributes)

    def scope(self, name: str, version: str) -> bool:
        if not self._libraries:
            return True
        return any(names(name) and (versions is None or versions(version)) for names, versions in self._libraries)

    def span(self, span: Any, attributes: Attributes) -> bool:
        return (
            (self.names is None or self.names(span.name))
            and (self.kinds is None or self.kinds(kind_name(span.kind)))
            and self.attributes(attributes)
        )

    def metric(self, metric: Any) -> bool:
        return self.names is None or self.names(metric.name)

    def log(self, record: Any, attributes: Attributes, body: Callable[[], str]) -> bool:
        if self._severity is not None:
            number = record.severity_number
            if not (number >= self._severity.min if number else self._severity.match_undefined):
                return False
        return (
            (self._bodies is None or self._bodies(body()))
            and (self._severity_texts is None or self._severity_texts(record.severity_text))
            and self.attributes(attributes)
        )


def kind_name(kind: int) -> str:
    return SPAN_KINDS[kind] if 0 <= kind < len(SPAN_KINDS) else ""


def _texts(wanted: Sequence[str], match_type: str) -> Text | None:
    return matcher(wanted, match_type) if wanted else None
