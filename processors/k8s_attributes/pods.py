"""What is kept of a pod: attributes, containers, and what names its service; from the JSON of the API, whatever is in it.

Names of workloads come from the pod alone. A ReplicaSet's name without the pod's ``pod-template-hash`` is its Deployment's,
a Job's without the minute it was scheduled for its CronJob's: no other object has to be watched.

Services are named as https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/ says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from sys import intern
from typing import Any, Final, NamedTuple, TypeAlias

from ..patterns import compiled
from .settings import ExtractSettings, FieldRule

#: characters of a label or annotation that becomes an attribute; annotations can have 256 KiB
VALUE_LIMIT: Final = 1_024
#: attributes that a pattern can make of one pod
MATCHES_LIMIT: Final = 64

_TEMPLATE_HASH: Final = "pod-template-hash"
#: of a static pod's mirror: the uid by which the kubelet names its control groups
_MIRROR: Final = "kubernetes.io/config.mirror"
_OTEL: Final = "resource.opentelemetry.io/"
_WELL_KNOWN: Final = "app.kubernetes.io/"
_SCHEDULED: Final = re.compile(r"(.+)-\d{8,10}")
_TERMINAL: Final = frozenset(("Succeeded", "Failed"))
#: kinds of controllers, in the order in which they name a service
WORKLOADS: Final = ("deployment", "replicaset", "statefulset", "daemonset", "cronjob", "job")
_STATUSES: Final = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")

Text: TypeAlias = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Container:
    """ids: of the present and the last run, without the runtime's scheme."""

    name: str
    ids: tuple[str, ...]
    attributes: Mapping[str, Text]


@dataclass(frozen=True, slots=True)
class Pod:
    """uids: its own, and of a static pod the hash. addresses: none of the host's. attributes: those of the pod. instance: the
    annotation that names the instance of the service. only: the container, if there is one only."""

    uids: tuple[str, ...]
    namespace: str
    name: str
    addresses: tuple[str, ...]
    attributes: Mapping[str, Text]
    containers: tuple[Container, ...]
    version: str
    instance: str
    only: Container | None


class Workload(NamedTuple):
    """kind: lower case, as in ``k8s.{kind}.name``."""

    kind: str
    name: str
    uid: str


def part(item: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A mapping within a mapping; empty if there is none."""
    found: Any = item
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def text(item: Mapping[str, Any], key: str) -> str:
    found = item.get(key)
    return _encodable(found) if isinstance(found, str) else ""


def _encodable(value: str) -> str:
    """JSON can have lone surrogates, OTLP cannot."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def entries(item: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = item.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def addresses_of(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The addresses that are the pod's alone: none of a pod in the host's network, and none of one that has ended."""
    status = part(item, "status")
    if part(item, "spec").get("hostNetwork") is True or has_ended(item):
        return ()
    found = [text(entry, "ip") for entry in entries(status, "podIPs")] or [text(status, "podIP")]
    return tuple(address for address in found if address)


def has_ended(item: Mapping[str, Any]) -> bool:
    return text(part(item, "status"), "phase") in _TERMINAL


def time_of(stamp: str) -> int | None:
    """Unix ns of a time of Kubernetes, which has whole seconds."""
    try:
        return int(datetime.fromisoformat(stamp).timestamp()) * 10**9
    except (ValueError, OverflowError):
        return None


def workloads_of(item: Mapping[str, Any]) -> dict[str, Workload]:
    """The controllers of a pod by their kind: what owns it, and what owns that."""
    metadata = part(item, "metadata")
    owners = entries(metadata, "ownerReferences")
    owner = next((entry for entry in owners if entry.get("controller") is True), owners[0] if owners else {})
    kind, name, uid = text(owner, "kind").lower(), text(owner, "name"), text(owner, "uid")
    found = {kind: Workload(kind, name, uid)} if kind in WORKLOADS and name else {}
    template = text(part(metadata, "labels"), _TEMPLATE_HASH)
    if kind == "replicaset" and template and name.endswith(f"-{template}"):
        found["deployment"] = Workload("deployment", name.removesuffix(f"-{template}"), "")
    scheduled = _SCHEDULED.fullmatch(name) if kind == "job" else None
    if scheduled:
        found["cronjob"] = Workload("cronjob", scheduled[1], "")
    return found


def service_name_of(item: Mapping[str, Any], well_known_labels: bool) -> str:
    metadata = part(item, "metadata")
    declared = text(part(metadata, "annotations"), f"{_OTEL}service.name")
    labels = part(metadata, "labels")
    labelled = [text(labels, f"{_WELL_KNOWN}{name}") for name in ("instance", "name")] if well_known_labels else []
    workloads = workloads_of(item)
    controllers = [workloads[kind].name for kind in WORKLOADS if kind in workloads]
    return next(name for name in (declared, *labelled, *controllers, text(metadata, "name"), "pod") if name)[
        :VALUE_LIMIT
    ]


class PodReader:
    """Makes pods of the API's objects."""

    def __init__(self, extract: ExtractSettings) -> None:
        self._wanted = frozenset(extract.metadata)
        self._labels = [_rule(rule, "labels") for rule in extract.labels]
        self._annotations = [_rule(rule, "annotations") for rule in extract.annotations]
        self._otel_annotations = extract.otel_annotations
        self._well_known = extract.service_attributes.well_known_labels

    def pod(self, item: Mapping[str, Any]) -> Pod | None:
        """None of what is no pod."""
        metadata = part(item, "metadata")
        uid, name, namespace = (text(metadata, key) for key in ("uid", "name", "namespace"))
        if not uid or not name:
            return None
        annotations, labels = part(metadata, "annotations"), part(metadata, "labels")
        containers = tuple(self._containers(item))
        declared = len(containers) - len(entries(part(item, "spec"), "initContainers"))
        alone = len(containers) == 1 and declared == 1
        version = text(annotations, f"{_OTEL}service.version")
        if not version and self._well_known:
            version = text(labels, f"{_WELL_KNOWN}version")
        return Pod(
            uids=tuple(filter(None, (uid, text(annotations, _MIRROR)))),
            namespace=intern(namespace),
            name=name,
            addresses=addresses_of(item),
            attributes=dict(self._attributes(item)),
            containers=containers,
            version=version[:VALUE_LIMIT],
            instance=text(annotations, f"{_OTEL}service.instance.id")[:VALUE_LIMIT],
            only=containers[0] if alone else None,
        )

    def _attributes(self, item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Of the same name the last counts: what a rule names is meant."""
        yield from ((name, value) for name, value in self._metadata(item) if value and name in self._wanted)
        metadata = part(item, "metadata")
        annotations, labels = part(metadata, "annotations"), part(metadata, "labels")
        if self._otel_annotations:
            yield from _matching(annotations, lambda key: key.removeprefix(_OTEL) if key.startswith(_OTEL) else "")
        for rules, values in ((self._labels, labels), (self._annotations, annotations)):
            for rule in rules:
                yield from _matching(values, rule)

    def _metadata(self, item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        metadata, spec, status = part(item, "metadata"), part(item, "spec"), part(item, "status")
        namespace = intern(text(metadata, "namespace"))
        yield "k8s.namespace.name", namespace
        yield "k8s.pod.name", text(metadata, "name")
        yield "k8s.pod.uid", text(metadata, "uid")
        yield "k8s.pod.hostname", text(spec, "hostname") or text(metadata, "name")
        yield "k8s.pod.ip", text(status, "podIP")
        yield "k8s.pod.start_time", text(status, "startTime")
        yield "k8s.node.name", intern(text(spec, "nodeName"))
        for kind, workload in workloads_of(item).items():
            yield intern(f"k8s.{kind}.name"), workload.name
            yield intern(f"k8s.{kind}.uid"), workload.uid
        yield "service.name", service_name_of(item, self._well_known)
        declared = text(part(metadata, "annotations"), f"{_OTEL}service.namespace")
        yield "service.namespace", declared[:VALUE_LIMIT] or namespace

    def _containers(self, item: Mapping[str, Any]) -> Iterator[Container]:
        spec, status = part(item, "spec"), part(item, "status")
        known = {text(entry, "name"): entry for key in _STATUSES for entry in entries(status, key)}
        for key in ("containers", "initContainers", "ephemeralContainers"):
            for container in entries(spec, key):
                name = text(container, "name")
                found = known.get(name, {})
                runs = (found, *(part(found, "lastState", "terminated"), part(found, "state", "terminated")))
                ids = dict.fromkeys(text(run, "containerID").rpartition("//")[2] for run in runs)
                described = self._of_container(name, text(container, "image"), text(found, "imageID"))
                yield Container(name, tuple(filter(None, ids)), described)

    def _of_container(self, name: str, image: str, image_id: str) -> dict[str, Text]:
        repository, tag, digest = image_parts(image)
        by_digest = image_id.rpartition("//")[2]
        described: dict[str, Text] = {
            "k8s.container.name": intern(name),
            "container.image.name": intern(repository),
            "container.image.tag": intern(tag or ("" if digest else "latest")),
            "service.version": intern("@".join(filter(None, (tag, digest)))),
        }
        if "@" in by_digest:
            described["container.image.repo_digests"] = (by_digest,)
        return {key: value for key, value in described.items() if value and key in self._wanted}


def image_parts(image: str) -> tuple[str, str, str]:
    """Repository, tag and digest of the name of an image; empty what it does not have."""
    named, _, digest = image.partition("@")
    path, colon, tag = named.rpartition(":")
    return (path, tag, digest) if colon and "/" not in tag else (named, "", digest)


_Rule: TypeAlias = Callable[[str], str]


def _rule(rule: FieldRule, what: str) -> _Rule:
    """Makes of a key the name of its attribute; empty if it is none."""
    if rule.key:
        name = rule.tag_name or f"k8s.pod.{what}.{rule.key}"
        return lambda key: name if key == rule.key else ""
    pattern = compiled(f"^(?:{rule.key_regex})$")

    def named(key: str) -> str:
        found = pattern.search(key)
        if found is None:
            return ""
        return _expanded(rule.tag_name, found) if rule.tag_name else f"k8s.pod.{what}.{key}"

    return named


def _expanded(template: str, found: Any) -> str:
    """``$1``, ``${1}`` and ``${name}`` as what the groups matched, like Go's Regexp.Expand."""

    def group(reference: re.Match[str]) -> str:
        name = reference[1] or reference[2]
        try:
            return found.group(int(name) if name.isdigit() else name) or ""
        except (IndexError, KeyError):
            return ""

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", group, template)


def _matching(values: Mapping[str, Any], rule: _Rule) -> Iterator[tuple[str, str]]:
    left = MATCHES_LIMIT
    for key, value in values.items():
        name = rule(_encodable(key)) if isinstance(value, str) else ""
        if name and left:
            left -= 1
            yield name, _encodable(value[:VALUE_LIMIT])
