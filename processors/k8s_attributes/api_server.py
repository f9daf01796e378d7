"""Requests to the API server, with the ``kubernetes`` client's configuration, authentication and TLS, and none of its models.

The client is imported where a processor starts: it takes 20 MB, and its models would take more. It finds the server, reads
the token anew when that is renewed, and runs the credential plug-ins of a kubeconfig.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from ...pipeline.component import StartError

_CHUNK: Final = 65_536
_CONNECT_SECONDS: Final = 10.0


class ApiError(Exception):
    """The API server says no. code: of HTTP, or of a Status in a watch. retry_after: seconds that it asks to wait for."""

    def __init__(self, code: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after

    @property
    def gone(self) -> bool:
        """Whether the version that was asked for is too old."""
        return self.code == 410


class Answer:
    """A body as it comes. ``abort`` ends a read that waits in another thread."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        yield from self._response.stream(_CHUNK, decode_content=True)

    def abort(self) -> None:
        self._response.shutdown()

    def close(self) -> None:
        self._response.close()


class ApiServer:
    """configuration: of the ``kubernetes`` client."""

    def __init__(self, configuration: Any) -> None:
        from kubernetes.client.rest import RESTClientObject

        self._configuration = configuration
        self._pool = RESTClientObject(configuration).pool_manager
        self.host: str = configuration.host.rstrip("/")

    def get(self, path: str, parameters: Mapping[str, str], read_timeout: float, compressed: bool = False) -> Answer:
        """Raises ApiError, and what urllib3 does. read_timeout: seconds of silence."""
        import urllib3

        headers = {"Accept": "application/json", "User-Agent": "wirespan", **self._authorization()}
        if compressed:
            headers["Accept-Encoding"] = "gzip"
        response = self._pool.request(
            "GET",
            f"{self.host}{path}?{urlencode(parameters)}",
            headers=headers,
            preload_content=False,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_timeout),
        )
        if response.status != 200:
            response.close()
            raise ApiError(response.status, f"HTTP {response.status}", _seconds(response.headers.get("Retry-After")))
        return Answer(response)

    def _authorization(self) -> dict[str, str]:
        found = self._configuration.auth_settings().get("BearerToken")
        return {"Authorization": found["value"]} if found and found["value"] else {}


def connect(auth_type: str, context: str) -> ApiServer:
    """Raises StartError if there is no configuration to use; whether the server answers is not looked at."""
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise StartError(f"the package kubernetes cannot be imported: {error}; install wirespan again") from error
    configuration = client.Configuration()
    try:
        match auth_type:
            case "serviceAccount":
                config.load_incluster_config(configuration)
            case "kubeConfig":
                config.load_kube_config(
                    os.environ.get("KUBECONFIG"), context or None, configuration, persist_config=False
                )
            case _:
                configuration.host = _plain_host()
    except (config.ConfigException, OSError) as error:
        raise StartError(
            f"no access to the API server by auth_type {auth_type}: {error}{_ADVICE[auth_type]}"
        ) from error
    return ApiServer(configuration)


_ADVICE: Final = {
    "serviceAccount": ". In a pod it needs a service account whose token is mounted; elsewhere use auth_type: kubeConfig",
    "kubeConfig": ". Set KUBECONFIG, or make ~/.kube/config",
    "none": "",
}


def _plain_host() -> str:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise OSError("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isascii() and header.isdigit() else 0.0
