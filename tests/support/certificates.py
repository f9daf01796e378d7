"""Certificates that servers of tests show, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.availability import need_command


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for this name that signs itself, and its key."""
    made, key = folder / "certificate.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    words += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(made)]
    subprocess.run([need_command("openssl"), *words], check=True, capture_output=True)
    return made, key
