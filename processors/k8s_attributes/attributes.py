"""What becomes of the attributes of a resource once its pod is known.

What a sender says of itself is never replaced. What the receiver ``ebpf`` only inferred is, and so is the name that SDKs
give to what has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ..values import Attributes, Value
from .pod_table import Match

INFERRED: Final = "wirespan.resource.inferred"
#: what says that a resource is of a pod, or of a container
_OF_PODS: Final = ("k8s.pod.uid", "container.id")
_INSTANCE: Final = "service.instance.id"
_UNKNOWN: Final = "unknown_service"


def describe(attributes: Attributes, match: Match, wanted: frozenset[str], keep_instance: bool) -> None:
    """Add what is known of the pod. wanted: of ``extract.metadata``. keep_instance: an inferred id of an instance stays,
    since one container may be several of them."""
    inferred = _inferred(attributes)
    kept = inferred & {_INSTANCE} if keep_instance else frozenset[str]()
    for name, value in _described(match, wanted):
        if name in attributes and name not in inferred - kept and not _says_nothing(name, attributes[name]):
            continue
        attributes[name] = value
        inferred -= {name}
    if len(match.pod.uids) > 1 and attributes.get("k8s.pod.uid") == match.pod.uids[1]:
        attributes["k8s.pod.uid"] = match.pod.uids[0]  # the API's, of a static pod that was known by its hash
    if INFERRED in attributes:
        _keep_inferred(attributes, inferred)


def is_of_pod(attributes: Mapping[str, Value]) -> bool:
    return _OF_PODS[0] in attributes


def _described(match: Match, wanted: frozenset[str]) -> Iterator[tuple[str, Value]]:
    pod, container = match
    yield from pod.attributes.items()
    described = {} if container is None else container.attributes
    yield from ((name, value) for name, value in described.items() if name != "service.version")
    version = pod.version or described.get("service.version", "")
    if version and "service.version" in wanted:
        yield "service.version", version
    if container is not None and container.ids and "container.id" in wanted:
        yield "container.id", container.ids[0]
    if _INSTANCE in wanted:
        if pod.instance:
            yield _INSTANCE, pod.instance
        elif container is not None:
            yield _INSTANCE, f"{pod.namespace}.{pod.name}.{container.name}"


def _inferred(attributes: Mapping[str, Value]) -> frozenset[str]:
    found = attributes.get(INFERRED)
    return frozenset(str(name) for name in found) if isinstance(found, tuple) else frozenset()


def _keep_inferred(attributes: Attributes, inferred: frozenset[str]) -> None:
    before = attributes[INFERRED]
    left = tuple(name for name in before if name in inferred) if isinstance(before, tuple) else ()
    if left:
        attributes[INFERRED] = left
    else:
        del attributes[INFERRED]


def _says_nothing(name: str, value: Value) -> bool:
    return name == "service.name" and isinstance(value, str) and value.startswith(_UNKNOWN)
