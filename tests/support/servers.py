"""Real servers for tests, each on a free port with its data in a folder of the test."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.availability import need_command, need_tool
from support.processes import Process, free_port


@dataclass(frozen=True)
class Listening:
    """A server process and the port it accepts connections on."""

    process: Process
    port: int


@contextmanager
def redis(folder: Path, address: str = "127.0.0.1") -> Iterator[Listening]:
    """A Redis server without persistence."""
    port = free_port(address)
    options = {"bind": address, "port": str(port), "save": "", "appendonly": "no", "dir": str(folder)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with Process("redis-server", [need_command("redis-server"), *words], folder) as process:
        process.wait_for_port(port, address)
        yield Listening(process, port)


NGINX = """
daemon off;
master_process off;
user root;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    {http}
    server {{
        listen {address}:{port};
        root {folder}/www;
        {server}
    }}
}}
"""


@contextmanager
def nginx(folder: Path, server: str = "", address: str = "127.0.0.1", http: str = "") -> Iterator[Listening]:
    """An nginx of one process that serves ``folder/www``; ``server`` is added to its server block, ``http`` before it."""
    port = free_port(address)
    (folder / "www").mkdir(exist_ok=True)
    (folder / "www" / "index.html").write_text("<p>It is here.</p>\n")
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, address=address, port=port, server=server, http=http))
    command: list[str | Path] = [need_command("nginx"), "-e", "stderr", "-c", configuration, "-p", folder]
    with Process("nginx", command, folder) as process:
        process.wait_for_port(port, address)
        yield Listening(process, port)


@contextmanager
def python_server(script: Path, folder: Path, *arguments: str, address: str = "127.0.0.1") -> Iterator[Listening]:
    """``python script PORT arguments…``, which listens on PORT of ``address``."""
    port = free_port(address)
    with Process(script.stem, [sys.executable, script, str(port), *arguments], folder) as process:
        process.wait_for_port(port, address)
        yield Listening(process, port)


@dataclass(frozen=True)
class Collector:
    """An OpenTelemetry Collector and its OTLP ports."""

    process: Process
    grpc_port: int
    http_port: int


@contextmanager
def collector(folder: Path, forward_to: int) -> Iterator[Collector]:
    """A Collector that forwards by OTLP over HTTP to the port ``forward_to``: traces in batches of its own, each request of
    metrics as it came, once in protobuf and once in the JSON that its file exporter writes."""
    grpc_port, http_port = free_port(), free_port()
    protocols = {
        "grpc": {"endpoint": f"127.0.0.1:{grpc_port}"},
        "http": {"endpoint": f"127.0.0.1:{http_port}"},
    }
    pipeline = {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp_http"]}
    metrics = {"receivers": ["otlp"], "exporters": ["otlp_http", "otlp_http/json"]}
    backend = {"endpoint": f"http://127.0.0.1:{forward_to}"}
    configuration = {
        "receivers": {"otlp": {"protocols": protocols}},
        "processors": {"batch": {"timeout": "100ms"}},
        "exporters": {"otlp_http": backend, "otlp_http/json": {**backend, "encoding": "json"}},
        "service": {
            "pipelines": {"traces": pipeline, "metrics": metrics},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    command: list[str | Path] = [need_tool("otelcol"), "--config", _written(folder / "collector.yaml", configuration)]
    with Process("otelcol", command, folder) as process:
        process.wait_for_log("Everything is ready")
        yield Collector(process, grpc_port, http_port)


@contextmanager
def relay(
    folder: Path, protocol: str, port: int, batch: Mapping[str, Any] | None = None, **settings: Any
) -> Iterator[Collector]:
    """A Collector that passes on traces, metrics and logs to a port, by gRPC (``otlp_grpc``) or HTTP (``otlp_http``), with gzip:
    each request as it came, or batched with these settings. settings: more of the exporter."""
    folder.mkdir(exist_ok=True)
    grpc_port, http_port = free_port(), free_port()
    protocols = {
        "grpc": {"endpoint": f"127.0.0.1:{grpc_port}"},
        "http": {"endpoint": f"127.0.0.1:{http_port}"},
    }
    backend = {
        "endpoint": f"http://127.0.0.1:{port}",
        "tls": {"insecure": True},
        "compression": "gzip",
        "retry_on_failure": {"initial_interval": "100ms", "max_interval": "500ms"},
        **settings,
    }
    pipeline = {"receivers": ["otlp"], "processors": [] if batch is None else ["batch"], "exporters": [protocol]}
    configuration = {
        "receivers": {"otlp": {"protocols": protocols}},
        "processors": {"batch": batch},
        "exporters": {protocol: backend},
        "service": {
            "pipelines": {"traces": pipeline, "metrics": pipeline, "logs": pipeline},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    command: list[str | Path] = [need_tool("otelcol"), "--config", _written(folder / "relay.yaml", configuration)]
    with Process("otelcol", command, folder) as process:
        process.wait_for_log("Everything is ready")
        yield Collector(process, grpc_port, http_port)


@dataclass(frozen=True)
class Jaeger:
    """A Jaeger that keeps traces in memory, its OTLP ports and that of its query API."""

    process: Process
    grpc_port: int
    http_port: int
    query_port: int


@contextmanager
def jaeger(folder: Path) -> Iterator[Jaeger]:
    """Jaeger 2: a Collector with Jaeger's storage and query extensions."""
    grpc_port, http_port, query_port, query_grpc_port = (free_port() for _ in range(4))
    protocols = {
        "grpc": {"endpoint": f"127.0.0.1:{grpc_port}"},
        "http": {"endpoint": f"127.0.0.1:{http_port}"},
    }
    query = {
        "storage": {"traces": "memory"},
        "http": {"endpoint": f"127.0.0.1:{query_port}"},
        "grpc": {"endpoint": f"127.0.0.1:{query_grpc_port}"},
    }
    configuration = {
        "receivers": {"otlp": {"protocols": protocols}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 100_000}}}},
            "jaeger_query": query,
        },
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    command: list[str | Path] = [need_tool("jaeger"), "--config", _written(folder / "jaeger.yaml", configuration)]
    # Otherwise Jaeger traces queries, and its end waits until nobody takes those traces.
    environment = {"OTEL_TRACES_SAMPLER": "always_off"}
    with Process("jaeger", command, folder, environment) as process:
        process.wait_for_log("Everything is ready")
        yield Jaeger(process, grpc_port, http_port, query_port)


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus and the port of its API and its OTLP receiver."""

    process: Process
    port: int

    @property
    def otlp_endpoint(self) -> str:
        """``/v1/metrics`` comes after it."""
        return f"http://127.0.0.1:{self.port}/api/v1/otlp"


@contextmanager
def prometheus(folder: Path, configuration: Mapping[str, Any]) -> Iterator[Prometheus]:
    """Prometheus 3, which takes metrics by OTLP and scrapes nothing, started as deploy/prometheus/prometheus.yaml says."""
    port = free_port()
    command: list[str | Path] = [
        need_tool("prometheus"),
        f"--config.file={_written(folder / 'prometheus.yaml', configuration)}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-otlp-receiver",
        "--enable-feature=created-timestamp-zero-ingestion,exemplar-storage",
    ]
    with Process("prometheus", command, folder) as process:
        process.wait_for_log("Server is ready to receive web requests")
        yield Prometheus(process, port)


def _written(path: Path, configuration: Mapping[str, Any]) -> Path:
    # A round trip through JSON: YAML would write an alias for what occurs twice.
    path.write_text(yaml.safe_dump(json.loads(json.dumps(configuration))))
    return path
