"""Certificates that servers and clients of tests show, made by openssl."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.availability import need_command

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for this name that signs itself, and its key."""
    made, key = folder / "certificate.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    words += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(made)]
    _openssl(words)
    return made, key


@dataclass(frozen=True)
class Pair:
    """Files in PEM. Their names stay when they are replaced."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        """As ``tls`` wants them."""
        return {"cert_file": str(self.certificate), "key_file": str(self.key)}

    def become(self, other: Pair) -> None:
        """Take over what is in the files of another, one file after the other."""
        replace(self.key, other.key.read_bytes())
        replace(self.certificate, other.certificate.read_bytes())

    def copied(self, folder: Path) -> Pair:
        """The same in files of its own."""
        folder.mkdir()
        copy = Pair(folder / "certificate.pem", folder / "key.pem")
        copy.become(self)
        return copy


class Authority:
    """One that signs certificates, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.certificate, self._key = folder / "ca.pem", folder / "ca.key"
        words = ["req", "-x509", *_KEY, "-days", "1", "-subj", f"/CN={folder.name}"]
        _openssl([*words, "-keyout", str(self._key), "-out", str(self.certificate)])

    def issue(self, name: str, days: int = 1) -> Pair:
        """A certificate for this name; of -1 day it has expired."""
        request, extensions = self._folder / "request.pem", self._folder / "extensions"
        pair = Pair(self._folder / f"{name}.{days}.pem", self._folder / f"{name}.{days}.key")
        _openssl(["req", *_KEY, "-subj", f"/CN={name}", "-keyout", str(pair.key), "-out", str(request)])
        extensions.write_text(f"subjectAltName=DNS:{name}\nauthorityKeyIdentifier=keyid\n")
        words = ["x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)]
        _openssl([*words, "-days", str(days), "-extfile", str(extensions), "-out", str(pair.certificate)])
        return pair


def replace(path: Path, content: bytes) -> None:
    """At once, as what renews certificates does it."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    os.replace(beside, path)


def _openssl(words: list[str]) -> None:
    subprocess.run([need_command("openssl"), *words], check=True, capture_output=True)
