"""Whether another wirespan watches this machine: each holds a map of a name that no other program has.

Asked of the kernel, which knows all containers and forgets an agent that was killed. One that is compiled just now is
loaded for a moment and taken for another too.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np

from .libbpf import BpfObject
from .library import BpfError
from .programs import Attached

logger = logging.getLogger(__name__)

_PROGRAM: Final = "list_maps"
#: bytes of a map's name, BPF_OBJ_NAME_LEN
_NAME = "S16"
#: what libbpf calls the constants of wirespan.bpf.o: the name of the object goes before that of the section
_CONSTANTS: Final = b"wirespan.rodata"


def warn_of_others(programs: Attached) -> None:
    """Log it once. What this process has loaded, for other receivers or to take these programs' place, is no other one."""
    programs.attach(_PROGRAM)
    if not programs.available(_PROGRAM):
        return
    try:
        names = np.frombuffer(programs.iterate(_PROGRAM), _NAME)
    except BpfError as error:
        logger.warning("It is not known whether another wirespan watches this machine", extra={"error": str(error)})
        return
    finally:
        programs.links[_PROGRAM].close()
    others = int((names == _CONSTANTS).sum()) - BpfObject.in_kernel
    if others > 0:
        logger.warning(
            "Another wirespan watches this machine. What both select is exported twice, and each may see the other's "
            "exports",
            extra={"others": others},
        )
