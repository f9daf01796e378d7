"""Configuration of the receiver ``otlp``, with the Collector's keys and defaults, of those that it has."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ...pipeline.component import ComponentConfig, Signal
from ...pipeline.duration import Duration, within
from ...pipeline.listening import ServerSettings, address_of

# The largest request is less than what all in hand may take together: intake.IN_HAND.


class GrpcServerSettings(ServerSettings):
    """max_recv_msg_size_mib: of a request, decompressed. max_concurrent_streams: requests at a time on a connection."""

    endpoint: str = "localhost:4317"
    max_recv_msg_size_mib: int = Field(default=4, ge=1, le=100)
    max_concurrent_streams: int = Field(default=100, ge=1, le=100_000)


class HttpServerSettings(ServerSettings):
    """max_request_body_size: bytes of a request, compressed and decompressed. read_timeout: for a whole request.
    idle_timeout: between two requests on a connection."""

    endpoint: str = "localhost:4318"
    max_request_body_size: int = Field(default=20 * 1024 * 1024, ge=1, le=100 * 1024 * 1024)
    read_timeout: Annotated[Duration, within("10ms", "1h")] = 60.0
    idle_timeout: Annotated[Duration, within("10ms", "1h")] = 60.0
    traces_url_path: str = Field(default="/v1/traces", pattern="^/")
    metrics_url_path: str = Field(default="/v1/metrics", pattern="^/")
    logs_url_path: str = Field(default="/v1/logs", pattern="^/")

    @model_validator(mode="after")
    def _paths_are_told_apart(self) -> Self:
        if len({self.traces_url_path, self.metrics_url_path, self.logs_url_path}) < 3:
            raise ValueError("traces_url_path, metrics_url_path and logs_url_path have to differ")
        return self

    def path(self, signal: Signal) -> str:
        path: str = getattr(self, f"{signal}_url_path")
        return path


class Protocols(ComponentConfig):
    """Those that are given, if only as an empty key, are served."""

    grpc: GrpcServerSettings | None = None
    http: HttpServerSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _an_empty_key_has_the_defaults(cls, data: Any) -> Any:
        return {key: {} if value is None else value for key, value in data.items()} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.grpc is None and self.http is None:
            raise ValueError("needs grpc, http or both, as in protocols: {grpc: , http: }")
        return self


class OtlpReceiverSettings(ComponentConfig):
    protocols: Protocols


def conflict(one: OtlpReceiverSettings, other: OtlpReceiverSettings) -> str | None:
    """Why two receivers cannot run side by side."""
    endpoints = [
        {address_of(server.endpoint) for server in (given.protocols.grpc, given.protocols.http) if server is not None}
        for given in (one, other)
    ]
    shared = endpoints[0] & endpoints[1]
    return (
        f"it listens on the same port {min(address.port for address in shared)}; give one another" if shared else None
    )
