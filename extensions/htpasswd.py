"""Users and passwords as Apache's htpasswd writes them, ``name:hash`` a line: bcrypt, MD5 (apr1), SHA-256 and SHA-512 (crypt),
SHA-1, or the password itself."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

#: of bcrypt, which has no use for more; nor have programs that write these files
_BCRYPT_BYTES: Final = 72
_HASH: Final = re.compile(r"\$[0-9a-z-]+\$")


def users(text: str) -> Mapping[str, str]:
    """Hash by name; of several with a name the last. Raises ValueError, which names the line, for what is none."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, hashed = line.rstrip().partition(":")
        if not separator or not name or not hashed:
            raise ValueError(f"line {number} is not name:password")
        if _HASH.match(hashed) and _schemes().identify(hashed) is None:
            raise ValueError(f"line {number} has a hash of an unknown kind; htpasswd -B makes one that is known")
        found[name] = hashed
    if not found:
        raise ValueError("there is no user in it")
    return found


def fits(password: str, hashed: str) -> bool:
    """Takes as long as whoever made the hash wanted: tens of milliseconds."""
    scheme = _schemes().identify(hashed)
    if scheme is None:
        return hmac.compare_digest(password.encode(), hashed.encode())
    given = password.encode()[:_BCRYPT_BYTES] if scheme == "bcrypt" else password.encode()
    try:
        return bool(_schemes().verify(given, hashed))
    except ValueError:  # a hash that is cut off
        return False


@cache
def _schemes() -> Any:
    from passlib.context import CryptContext  # type: ignore[import-untyped]  # only now: it takes 8 MB

    known = ["bcrypt", "apr_md5_crypt", "md5_crypt", "sha256_crypt", "sha512_crypt", "ldap_sha1", "ldap_salted_sha1"]
    return CryptContext(schemes=known)
