"""What ``resource_detection`` finds out: about this machine, from the environment, and from Docker.

A detector returns what it found and raises :class:`DetectionError` for what it could not: the file or the service is not there.
"""

from __future__ import annotations

import json
import platform
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote, unquote_plus

from ..pipeline.spans import AttributeValue

#: Go's names, which are those of the semantic conventions, by those of uname
_ARCHITECTURES: Final[Mapping[str, str]] = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm32",
    "armv6l": "arm32",
    "i686": "x86",
    "i386": "x86",
    "ppc64le": "ppc64",
}
#: of an entry of OTEL_RESOURCE_ATTRIBUTES, trimmed
_ENTRY: Final = re.compile(r"\s*([\x00-\x7f]{1,256}?)\s*=\s*([\x00-\x7f]{0,256}?)\s*(?:,|$)")
_DOCKER_SOCKET: Final = "/var/run/docker.sock"
#: bytes of an answer of Docker
_LONGEST_ANSWER: Final = 4_194_304

Found: TypeAlias = dict[str, AttributeValue]
Result = TypeVar("Result")


class DetectionError(Exception):
    """What cannot be found out, and why."""


def of_environment(environment: Mapping[str, str]) -> Found:
    """OTEL_RESOURCE_ATTRIBUTES: ``key=value,key=value``, values percent-encoded."""
    text = environment.get("OTEL_RESOURCE_ATTRIBUTES", "").strip() or environment.get("OTEL_RESOURCE", "").strip()
    found: Found = {}
    end = 0
    while end < len(text):
        entry = _ENTRY.match(text, end)
        if entry is None:
            raise DetectionError("OTEL_RESOURCE_ATTRIBUTES is not of the form key=value,key=value")
        found[entry[1]] = unquote_plus(entry[2])
        end = entry.end()
    return found


def of_system(wanted: frozenset[str], hostname_sources: Sequence[str], seconds: float, root: Path = Path("/")) -> Found:
    """wanted: attributes to look for. hostname_sources: the first that knows it, each within these seconds, gives
    ``host.name``."""
    found: Found = {}
    if "host.name" in wanted:
        found["host.name"] = _host_name(hostname_sources, seconds)
    if wanted & _CPU.keys():
        found |= _processor(root)
    if wanted & _RELEASE:
        found |= _release(root)
    uname = platform.uname()
    found["os.type"] = "linux"
    found["host.arch"] = _ARCHITECTURES.get(uname.machine, uname.machine)
    if "host.id" in wanted:
        found["host.id"] = _first_text(root / "etc/machine-id", root / "var/lib/dbus/machine-id")
    if wanted & {"host.ip", "host.mac", "host.interface"}:
        found |= _network(root)
    return {key: value for key, value in found.items() if key in wanted and value not in ("", ())}


def in_background(work: Callable[[], Result]) -> Future[Result]:
    """In a thread that nobody has to wait for: a name server may never answer."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, name="detector", daemon=True).start()
    return future


def _host_name(sources: Sequence[str], seconds: float) -> str:
    for source in sources:
        with suppress(OSError, UnicodeError, TimeoutError):
            name = in_background(_HOST_NAMES[source]).result(seconds)
            if name:
                return name
    raise DetectionError(f"no name of the host by {', '.join(sources)}")


def _qualified() -> str:
    name = socket.getfqdn()
    return name if "." in name and not name.startswith("localhost") else ""


def _canonical() -> str:
    found = socket.getaddrinfo(socket.gethostname(), None, flags=socket.AI_CANONNAME)
    return found[0][3]


def _looked_up() -> str:
    return socket.gethostbyaddr(socket.gethostbyname(socket.gethostname()))[0]


_HOST_NAMES: Final[Mapping[str, Callable[[], str]]] = {
    "os": socket.gethostname,
    "dns": _qualified,
    "cname": _canonical,
    "lookup": _looked_up,
}
#: of /proc/cpuinfo
_CPU: Final[Mapping[str, str]] = {
    "host.cpu.vendor.id": "vendor_id",
    "host.cpu.family": "cpu family",
    "host.cpu.model.id": "model",
    "host.cpu.model.name": "model name",
    "host.cpu.stepping": "stepping",
    "host.cpu.cache.l2.size": "cache size",
}
_RELEASE: Final = frozenset({"os.description", "os.name", "os.version", "os.build.id"})


def _processor(root: Path) -> Found:
    said: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        said[name.strip()] = value.strip()
    found: Found = {key: said.get(name, "") for key, name in _CPU.items()}
    size = said.get("cache size", "").partition(" ")[0]
    found["host.cpu.cache.l2.size"] = int(size) if size.isdigit() else ""
    return found


def _release(root: Path) -> Found:
    said = {}
    for line in (_text(root / "etc/os-release") or _text(root / "usr/lib/os-release")).splitlines():
        name, _, value = line.partition("=")
        said[name] = value.strip().strip("\"'")
    uname = platform.uname()
    kernel = f"({uname.system} {uname.node} {uname.release} {uname.version} {uname.machine})"
    return {
        "os.description": f"{said.get('PRETTY_NAME', '')} {kernel}".strip(),
        "os.name": said.get("NAME", ""),
        "os.version": said.get("VERSION_ID", ""),
        "os.build.id": said.get("BUILD_ID", "") or uname.release,
    }


def _network(root: Path) -> Found:
    """Of interfaces other than the loopback."""
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    addresses = [_text(root / f"sys/class/net/{name}/address").strip() for name in names]
    return {
        "host.interface": tuple(names),
        "host.mac": tuple(address.upper().replace(":", "-") for address in addresses if address.strip("0:")),
        "host.ip": tuple(_addresses(root)),
    }


def _addresses(root: Path) -> list[str]:
    trie = _text(root / "proc/net/fib_trie")
    local = dict.fromkeys(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", trie))
    found = [address for address in local if not address.startswith("127.")]
    for line in _text(root / "proc/net/if_inet6").splitlines():
        digits, _, _, _, _, interface = line.split()
        if interface != "lo":
            found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)))
    return found


def _text(path: Path) -> str:
    """Of a file; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _first_text(*paths: Path) -> str:
    return next((text for path in paths if (text := _text(path).strip())), "")


class _Docker(HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def of_docker(wanted: frozenset[str], timeout: float, environment: Mapping[str, str]) -> Found:
    """What Docker's daemon says of itself, and of the container whose id is this machine's name."""
    path = environment.get("DOCKER_HOST", "").removeprefix("unix://") or _DOCKER_SOCKET
    found: Found = {}
    if wanted & {"host.name", "os.type"}:
        said = _asked(path, "/info", timeout)
        found |= {"host.name": str(said.get("Name", "")), "os.type": str(said.get("OSType", ""))}
    if wanted & {"container.name", "container.image.name"}:
        said = _asked(path, f"/containers/{quote(socket.gethostname(), safe='')}/json", timeout)
        config = said.get("Config")
        image = config.get("Image", "") if isinstance(config, dict) else ""
        found |= {"container.name": str(said.get("Name", "")).lstrip("/"), "container.image.name": str(image)}
    return {key: value for key, value in found.items() if key in wanted and value}


def _asked(path: str, target: str, timeout: float) -> dict[str, Any]:
    connection = _Docker(path, timeout)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read(_LONGEST_ANSWER)
        said = json.loads(body) if answer.status == 200 else None
    except (OSError, HTTPException, ValueError) as error:
        raise DetectionError(f"Docker at {path} does not answer: {error}") from error
    finally:
        connection.close()
    if not isinstance(said, dict):
        raise DetectionError(f"Docker at {path} answers {target} with {answer.status}")
    return said
