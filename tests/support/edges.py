"""``struct edge`` of bpf/edges.h, what its numbers mean, and resources, for tests without a kernel."""

from __future__ import annotations

import numpy as np

from wirespan.pipeline.spans import SpanKind
from wirespan.receiver.edge_groups import EdgeNames
from wirespan.receiver.edges import ResourceItems
from wirespan.receiver.process import ImageKey

KEY = np.dtype(
    {
        "names": ["process", "server_port", "role", "transport", "protocol", "status", "outcome", "peer"],
        "formats": [
            np.dtype([("start_time", "<u8"), ("tgid", "<u4"), ("exec_id", "<u4")]), "<u2", *["u1"] * 6,
        ],
        "offsets": [0, 20, 22, 23, 24, 25, 26, 27],
        "itemsize": 32,
    }
)  # fmt: skip
NAMES = EdgeNames(
    kinds={1: SpanKind.CLIENT, 2: SpanKind.SERVER},
    transports={6: "tcp"},
    protocols={0: "", 1: "redis"},
    statuses={0: "", 2: "success"},
    outcomes={0: "", 3: "timeout"},
    peers={0: "external", 1: "machine"},
    flags_on_machine=1,
)


def described(image: ImageKey) -> ResourceItems:
    return (("service.name", image.comm.decode()),)
