"""scripts/as-root: what it says before sudo asks, and that it says nothing where sudo does not ask.

sudo's rules are those of a mount namespace, so that nothing is changed on the machine.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.availability import need_root
from support.terminal import Terminal

SCRIPT = Path(__file__).parents[2] / "scripts" / "as-root"
WHAT_FOR = "Root is needed to load eBPF programs into the kernel and to tell whose sockets they see; sudo asks for it."
NOBODY = 65_534

pytestmark = pytest.mark.requires_command("sudo", "setpriv", "unshare")


@pytest.fixture
def script() -> Iterator[Path]:
    """A copy that any user may run: a checkout may be in a folder of root's."""
    need_root()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copy(SCRIPT, folder))


def as_nobody(script: Path, rule: str, folder: Path) -> list[str]:
    """A command that runs ``id -u`` through the script as a user to whom this rule of sudoers applies."""
    (folder / "rule").write_text(rule)
    (folder / "rule").chmod(0o440)
    user = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {script} id -u"
    return ["unshare", "--mount", "sh", "-c", f"mount --bind {folder} /etc/sudoers.d && exec {user}"]


def test_root_is_not_told_anything() -> None:
    need_root()
    done = subprocess.run([SCRIPT, "id", "-u"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_what_root_is_needed_for_is_said_before_sudo_asks(script: Path, tmp_path: Path) -> None:
    with Terminal(as_nobody(script, f"#{NOBODY} ALL=(ALL) ALL\n", tmp_path)) as terminal:
        terminal.wait_for("password for")
        told, asked = terminal.text.index(WHAT_FOR), terminal.text.index("password for")
        assert told < asked
        terminal.type("\x03")
        assert terminal.popen.wait(10) != 0


def test_where_sudo_does_not_ask_nothing_is_said(script: Path, tmp_path: Path) -> None:
    command = as_nobody(script, f"#{NOBODY} ALL=(ALL) NOPASSWD: ALL\n", tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
