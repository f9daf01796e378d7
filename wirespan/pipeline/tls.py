"""TLS as both ends of a connection configure it, with the Collector's keys (config/configtls), and what is in its files.

Certificates and keys are bytes in PEM once they are read: gRPC takes these, and Python's ``ssl`` gets the same through a file in
memory, so that both use what was checked. Checked means that OpenSSL takes it: a key that does not belong to its certificate, as
it is found half-way through a change of both, is never used.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, model_validator

from .component import ComponentConfig, StartError
from .duration import Duration, within

#: The older ones are refused by OpenSSL at its own level of security.
Version: TypeAlias = Literal["1.2", "1.3"]
_VERSIONS: Final[Mapping[Version, ssl.TLSVersion]] = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: Go's names of what it holds secure, and OpenSSL's; of TLS 1.3 there is nothing to choose.
_SUITES: Final[Mapping[str, str]] = {
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
#: between two looks at an authority of clients that is to be reloaded, if there is no ``reload_interval``
_CLIENT_CA_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Material:
    """In PEM. authorities: whose certificates the other end may show; None are the machine's, or for a server no others'."""

    authorities: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None


def _known_suite(suite: str) -> str:
    if suite not in _SUITES:
        raise ValueError(f"is no cipher suite; there are {', '.join(_SUITES)}")
    return suite


class _Tls(ComponentConfig):
    """What both ends have. reload_interval: seconds between two looks at the files; 0: they are read once."""

    cert_file: str | None = None
    cert_pem: str | None = None
    key_file: str | None = None
    key_pem: SecretStr | None = None
    min_version: Version = "1.2"
    max_version: Version | None = None
    cipher_suites: list[Annotated[str, AfterValidator(_known_suite)]] = Field(default_factory=list)
    reload_interval: Annotated[Duration, within("100ms", "720h", or_zero=True)] = 0.0

    @model_validator(mode="after")
    def _are_consistent(self) -> Self:
        if self.cert_file is not None and self.cert_pem is not None:
            raise ValueError("cert_file and cert_pem exclude each other")
        if self.key_file is not None and self.key_pem is not None:
            raise ValueError("key_file and key_pem exclude each other")
        if self.has_certificate == (self.key_file is None and self.key_pem is None):
            raise ValueError("cert_file and key_file are needed together")
        if self.max_version is not None and self.max_version < self.min_version:
            raise ValueError("min_version is above max_version")
        return self

    @property
    def has_certificate(self) -> bool:
        return self.cert_file is not None or self.cert_pem is not None

    @property
    def seconds_between_looks(self) -> float:
        return self.reload_interval

    @property
    def grpc_lacks(self) -> str | None:
        """Why gRPC cannot do this, if it cannot."""
        if self.min_version != "1.2" or self.max_version == "1.2" or self.cipher_suites:
            return "tls.min_version, tls.max_version and tls.cipher_suites are not possible with gRPC in Python: it takes TLS 1.2 and 1.3"
        return None

    def _identity(self) -> Material:
        key = None if self.key_pem is None else self.key_pem.get_secret_value()
        return Material(None, _content(self.cert_file, self.cert_pem), _content(self.key_file, key))

    def _choose(self, context: ssl.SSLContext) -> None:
        """Set what is not in files."""
        suites = [name for suite in self.cipher_suites if (name := _SUITES[suite])]
        if suites:
            context.set_ciphers(":".join(suites))
        only_new = bool(self.cipher_suites) and not suites  # as in Go: no suite of 1.2, no connection by it
        context.minimum_version = _VERSIONS["1.3" if only_new else self.min_version]
        if self.max_version is not None:
            context.maximum_version = _VERSIONS[self.max_version]


class ClientTls(_Tls):
    """``tls`` of an exporter. Without ca_file the machine's authorities are trusted."""

    insecure: bool = False
    insecure_skip_verify: bool = False
    server_name_override: str | None = None
    ca_file: str | None = None
    ca_pem: str | None = None
    include_system_ca_certs_pool: bool = False

    @model_validator(mode="after")
    def _one_authority(self) -> Self:
        if self.ca_file is not None and self.ca_pem is not None:
            raise ValueError("ca_file and ca_pem exclude each other")
        return self

    @property
    def files(self) -> list[str]:
        return [path for path in (self.ca_file, self.cert_file, self.key_file) if path is not None]

    def read(self) -> Material:
        """Raises StartError."""
        identity, authorities = self._identity(), _content(self.ca_file, self.ca_pem)
        if authorities is not None and self.include_system_ca_certs_pool:
            authorities += b"\n" + machines_authorities()
        return Material(authorities, identity.certificate, identity.key)

    def context(self, material: Material) -> ssl.SSLContext:
        """Raises StartError for what cannot be used."""
        with _told_of(self.files):
            context = _context(ssl.Purpose.SERVER_AUTH, material)
            self._choose(context)
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class ServerTls(_Tls):
    """``tls`` of a receiver. client_ca_file: authorities of clients, which then need a certificate. client_ca_file_reload: it is
    looked at again also without a reload_interval."""

    client_ca_file: str | None = None
    client_ca_file_reload: bool = False

    @model_validator(mode="after")
    def _has_a_certificate(self) -> Self:
        if not self.has_certificate:
            raise ValueError("needs cert_file and key_file, or cert_pem and key_pem")
        return self

    @property
    def files(self) -> list[str]:
        return [path for path in (self.cert_file, self.key_file, self.client_ca_file) if path is not None]

    @property
    def seconds_between_looks(self) -> float:
        return self.reload_interval or (_CLIENT_CA_SECONDS if self.client_ca_file_reload else 0.0)

    def read(self) -> Material:
        """Raises StartError."""
        identity = self._identity()
        return Material(_content(self.client_ca_file, None), identity.certificate, identity.key)

    def context(self, material: Material) -> ssl.SSLContext:
        """Raises StartError for what cannot be used."""
        with _told_of(self.files):
            context = _context(ssl.Purpose.CLIENT_AUTH, material)
            self._choose(context)
        if material.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def machines_authorities() -> bytes:
    """Those that OpenSSL trusts by default, for gRPC, which otherwise trusts what came with it."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None:
        return Path(paths.cafile).read_bytes()
    by_hash = sorted(Path(paths.capath).glob("????????.[0-9]")) if paths.capath is not None else []
    return b"\n".join(path.read_bytes() for path in by_hash)


def _content(path: str | None, text: str | None) -> bytes | None:
    if path is None:
        return None if text is None else text.encode()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def _told_of(files: list[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # SSLError is one
        source = ", ".join(files) or "the configuration"
        raise StartError(f"cannot use the certificates in {source}: {error}") from error


def _context(purpose: ssl.Purpose, material: Material) -> ssl.SSLContext:
    if material.authorities is None:
        context = ssl.create_default_context(purpose)
    else:
        with _in_memory(material.authorities) as path:
            context = ssl.create_default_context(purpose, cafile=path)
    if material.certificate is not None and material.key is not None:
        with _in_memory(material.key + b"\n" + material.certificate) as path:
            context.load_cert_chain(path, password="")  # or OpenSSL asks for that of an encrypted key, on the terminal
    return context


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file with this content: ``ssl`` takes a chain by path alone."""
    with open(os.memfd_create("wirespan"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
