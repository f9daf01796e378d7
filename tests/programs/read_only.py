"""Runs a program to which all of the machine's files are read-only but for those of a folder: ``FOLDER COMMAND...``, as
ProtectSystem=strict with StateDirectory= makes them for a service, and the other Protect… for /proc, /sys and cgroups."""

from __future__ import annotations

import ctypes
import os
import sys

MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
CLONE_NEWNS = 0x20000
MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 1

libc = ctypes.CDLL(None, use_errno=True)


class Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd"))


def check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def set_attributes(path: str, attributes: Attributes, flags: int) -> None:
    size = ctypes.sizeof(attributes)
    check(
        libc.syscall(MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), size),
        f"mount_setattr {path}",
    )


def main() -> None:
    folder, *command = sys.argv[1:]
    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount /")
    check(libc.mount(folder.encode(), folder.encode(), None, MS_BIND, None), f"mount {folder}")
    set_attributes("/", Attributes(set=MOUNT_ATTR_RDONLY), AT_RECURSIVE)
    set_attributes(folder, Attributes(clear=MOUNT_ATTR_RDONLY), 0)
    os.chdir(folder)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
