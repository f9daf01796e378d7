"""The configuration of ``k8s_attributes``: the Collector's keys, and ``peers``."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from ...pipeline.component import ComponentConfig
from ...pipeline.duration import Duration, within
from ..patterns import Pattern

Metadata: TypeAlias = Literal[
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.pod.hostname",
    "k8s.pod.ip",
    "k8s.pod.start_time",
    "k8s.node.name",
    "k8s.deployment.name",
    "k8s.replicaset.name",
    "k8s.replicaset.uid",
    "k8s.statefulset.name",
    "k8s.statefulset.uid",
    "k8s.daemonset.name",
    "k8s.daemonset.uid",
    "k8s.job.name",
    "k8s.job.uid",
    "k8s.cronjob.name",
    "k8s.container.name",
    "container.id",
    "container.image.name",
    "container.image.tag",
    "container.image.repo_digests",
    "service.namespace",
    "service.name",
    "service.version",
    "service.instance.id",
]
_DEFAULT_METADATA: Final[list[Metadata]] = [
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.pod.start_time",
    "k8s.node.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.job.name",
    "k8s.cronjob.name",
    "k8s.container.name",
    "container.image.name",
    "container.image.tag",
    "service.namespace",
    "service.name",
    "service.version",
    "service.instance.id",
]
_SOURCES_LIMIT: Final = 4


class FieldRule(ComponentConfig):
    """A label or an annotation of pods that becomes an attribute, or all whose keys a pattern describes."""

    tag_name: str = ""
    key: str = ""
    key_regex: Pattern = ""
    from_: Literal["pod"] = Field(default="pod", alias="from")

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if bool(self.key) == bool(self.key_regex):
            raise ValueError("needs either key or key_regex")
        return self


class ServiceAttributes(ComponentConfig):
    """well_known_labels: app.kubernetes.io/instance, …/name and …/version name services, too."""

    well_known_labels: bool = False


class ExtractSettings(ComponentConfig):
    metadata: list[Metadata] = Field(default=_DEFAULT_METADATA)
    labels: list[FieldRule] = Field(default_factory=list)
    annotations: list[FieldRule] = Field(default_factory=list)
    otel_annotations: bool = False
    service_attributes: ServiceAttributes = ServiceAttributes()
    deployment_name_from_replicaset: Literal[True] = True


class LabelFilter(ComponentConfig):
    key: str = Field(min_length=1)
    value: str = ""
    op: Literal["", "equals", "not-equals", "exists", "does-not-exist"] = "equals"


class FieldFilter(ComponentConfig):
    key: str = Field(min_length=1)
    value: str = ""
    op: Literal["", "equals", "not-equals"] = "equals"


class FilterSettings(ComponentConfig):
    """Which pods are known with all that is extracted."""

    node: str = ""
    node_from_env_var: str = ""
    namespace: str = ""
    labels: list[LabelFilter] = Field(default_factory=list)
    fields: list[FieldFilter] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_the_node_once(self) -> Self:
        if self.node and self.node_from_env_var:
            raise ValueError("node and node_from_env_var exclude each other")
        return self


class AssociationSource(ComponentConfig):
    """name: of the resource attribute; of a connection it is the address."""

    from_: Literal["resource_attribute", "connection"] = Field(alias="from")
    name: str = ""

    @model_validator(mode="after")
    def _names_an_attribute(self) -> Self:
        if self.from_ == "resource_attribute" and not self.name:
            raise ValueError("from: resource_attribute needs name")
        return self


class Association(ComponentConfig):
    """All of its sources together name a pod."""

    sources: list[AssociationSource] = Field(min_length=1, max_length=_SOURCES_LIMIT)


class ExcludedPod(ComponentConfig):
    name: Pattern = Field(min_length=1)


class ExcludeSettings(ComponentConfig):
    pods: list[ExcludedPod] = Field(default_factory=list)


class PeersSettings(ComponentConfig):
    """services: follow Services, too. stale_after: silence of the API server after which an address names nobody any more."""

    enabled: bool = True
    services: bool = True
    stale_after: Annotated[Duration, within("1s", "1h")] = 150.0


class K8sAttributesSettings(ComponentConfig):
    auth_type: Literal["none", "serviceAccount", "kubeConfig"] = "serviceAccount"
    context: str = ""
    filter: FilterSettings = FilterSettings()
    extract: ExtractSettings = ExtractSettings()
    pod_association: list[Association] = Field(default_factory=list)
    exclude: ExcludeSettings = ExcludeSettings()
    wait_for_metadata: bool = False
    wait_for_metadata_timeout: Annotated[Duration, within("100ms", "10m")] = 10.0
    peers: PeersSettings = PeersSettings()
