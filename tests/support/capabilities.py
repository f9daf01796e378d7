"""Programs with a part of root's capabilities, as a container or a service starts them."""

from __future__ import annotations

from collections.abc import Iterable

#: all that wirespan needs, by the names of capabilities(7)
NEEDED = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
#: nobody's: neither root nor whoever runs the tests
AGENT_USER = 65533


def as_root(capabilities: Iterable[str]) -> list[str]:
    """Words that start a program as a container does: user 0, only these capabilities, none to gain."""
    return ["setpriv", "--no-new-privs", f"--bounding-set={_only(capabilities)}", "--inh-caps=-all"]


def as_user(capabilities: Iterable[str], user: int = AGENT_USER) -> list[str]:
    """The same as systemd does for a user of its own: by ambient capabilities."""
    only = _only(capabilities)
    identity = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    sets = [f"--bounding-set={only}", f"--inh-caps={only}", f"--ambient-caps={only}"]
    return ["setpriv", "--no-new-privs", *identity, *sets]


def _only(capabilities: Iterable[str]) -> str:
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)])
