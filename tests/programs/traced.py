"""What traced programs share: a provider that exports OTLP, its tracer, and the W3C propagator."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


def tracing(service: str, endpoint: str | None, ratio: float = 1.0) -> tuple[Any, Any, Any]:
    """endpoint: URL of the traces signal, or without a path one for gRPC; None: that of the environment, by HTTP. ratio:
    of traces that are sampled at their root."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    provider = TracerProvider(
        ParentBased(TraceIdRatioBased(ratio)), Resource.create({"service.name": service, "telemetry.by": "sdk"})
    )
    provider.add_span_processor(BatchSpanProcessor(_exporter(endpoint)))
    return provider, provider.get_tracer("traced"), TraceContextTextMapPropagator()


def _exporter(endpoint: str | None) -> Any:
    if endpoint is not None and not urlsplit(endpoint).path:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint, insecure=True)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(endpoint)
