"""TLS as it is configured: versions, suites, certificates in the text, and what excludes each other."""

from __future__ import annotations

import os
import pty
import select
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from support.certificates import Authority, Pair
from wirespan.pipeline.tls import ClientTls, ServerTls

NAME = "server.test"
RSA_SUITES = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
ECDSA_SUITES = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]

requires_openssl = pytest.mark.requires_command("openssl")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authorities") / "one")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue(NAME)


def shaken(server: ServerTls, client: ClientTls) -> tuple[str | None, str]:
    """Version and suite that they agree on; raises ssl.SSLError."""
    inputs, outputs = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.context(client.read()).wrap_bio(inputs, outputs, server_hostname=NAME)
    other = server.context(server.read()).wrap_bio(outputs, inputs, server_side=True)
    for _ in range(4):
        for end in (one, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    cipher = one.cipher()
    assert cipher is not None
    return one.version(), cipher[0]


@requires_openssl
@pytest.mark.parametrize(
    ("of_server", "of_client", "agreed"),
    [
        ({}, {}, "TLSv1.3"),
        ({"max_version": "1.2"}, {}, "TLSv1.2"),
        ({}, {"max_version": "1.2"}, "TLSv1.2"),
        ({"min_version": "1.3"}, {"max_version": "1.2"}, None),
        ({"max_version": "1.2"}, {"min_version": "1.3"}, None),
        ({"max_version": "1.2", "cipher_suites": ECDSA_SUITES}, {}, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ({"max_version": "1.2"}, {"cipher_suites": ECDSA_SUITES}, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ({"max_version": "1.2", "cipher_suites": RSA_SUITES}, {}, None),  # the certificate is of the other kind
        ({"cipher_suites": ["TLS_AES_128_GCM_SHA256"]}, {}, "TLSv1.3"),
        ({"cipher_suites": ["TLS_AES_128_GCM_SHA256"]}, {"max_version": "1.2"}, None),
    ],
)
def test_both_ends_agree_on_a_version_and_a_suite_that_either_allows(
    of_server: dict[str, Any], of_client: dict[str, Any], agreed: str | None, authority: Authority, server: Pair
) -> None:
    ends = (
        ServerTls.model_validate(server.settings | of_server),
        ClientTls.model_validate({"ca_file": str(authority.certificate)} | of_client),
    )
    if agreed is None:
        with pytest.raises(ssl.SSLError):
            shaken(*ends)
    else:
        assert agreed in shaken(*ends)


@requires_openssl
def test_certificates_may_stand_in_the_text(authority: Authority, server: Pair) -> None:
    pem = {"cert_pem": server.certificate.read_text(), "key_pem": server.key.read_text()}
    client = ClientTls.model_validate({"ca_pem": authority.certificate.read_text()} | pem)
    assert shaken(ServerTls.model_validate(pem), client)[0] == "TLSv1.3"
    assert server.key.read_text() not in repr(client)


@requires_openssl
def test_the_machines_authorities_can_be_trusted_beside_those_of_a_file(
    authority: Authority, server: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Authority(tmp_path / "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    for also, trusted in ((False, False), (True, True)):
        given = {"ca_file": str(other.certificate), "include_system_ca_certs_pool": also}
        ends = (ServerTls.model_validate(server.settings), ClientTls.model_validate(given))
        if trusted:
            assert shaken(*ends)
        else:
            with pytest.raises(ssl.SSLError):
                shaken(*ends)


ON_A_TERMINAL = """
import sys
from wirespan.pipeline.component import StartError
from wirespan.pipeline.tls import ServerTls
tls = ServerTls(cert_file=sys.argv[1], key_file=sys.argv[2])
try:
    tls.context(tls.read())
except StartError as error:
    print(f"refused: {error}.")
"""


@requires_openssl
def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(server: Pair, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    words = ["openssl", "ec", "-in", str(server.key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(words, check=True, capture_output=True)
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-c", ON_A_TERMINAL, str(server.certificate), str(locked)])
    said = ""
    while "refused" not in said and select.select([terminal], [], [], 10)[0]:
        said += os.read(terminal, 4096).decode()
        assert "pass phrase" not in said
    os.close(terminal)
    os.waitpid(child, 0)
    assert said.startswith("refused: cannot use the certificates in ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cert_file": "a"}, "cert_file and key_file are needed together"),
        ({"key_pem": "a"}, "cert_file and key_file are needed together"),
        ({"cert_file": "a", "cert_pem": "a", "key_file": "b"}, "cert_file and cert_pem exclude each other"),
        ({"cert_file": "a", "key_pem": "a", "key_file": "b"}, "key_file and key_pem exclude each other"),
        ({"ca_file": "a", "ca_pem": "a"}, "ca_file and ca_pem exclude each other"),
        ({"min_version": "1.1"}, "Input should be '1.2' or '1.3'"),
        ({"min_version": "1.3", "max_version": "1.2"}, "min_version is above max_version"),
        ({"cipher_suites": ["RC4"]}, "is no cipher suite; there are TLS_AES_128_GCM_SHA256, "),
        ({"reload_interval": "1ms"}, "must be from 100ms to 720h, or 0"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClientTls.model_validate(given)
