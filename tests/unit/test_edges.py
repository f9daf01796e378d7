"""Series of exchanges out of what the kernel counts of edges; the kernel here is a dictionary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from support.edges import KEY, NAMES, described
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.spans import Fragment, SpanKind, StatusCode
from wirespan.receiver.edge_groups import grouped, told
from wirespan.receiver.edge_metrics import add_exchanges
from wirespan.receiver.edges import OVERFLOW, EdgeAccounts, ResourceItems, Series, SeriesCounts
from wirespan.receiver.histogram import SCALE, SLOTS, slots_of
from wirespan.receiver.kernel.edges import EXCHANGES, HISTOGRAMS, SUMS, EdgeCounts
from wirespan.receiver.metrics_request import MAX_BUCKETS, MetricsRequest

REST: ResourceItems = (("service.name", "unknown_service"),)


class Kernel:
    """Edges by key, as the kernel keeps them; comm says which service the process is of."""

    key_dtype = KEY
    counted = EXCHANGES

    def __init__(self, capacity: int = 1_000) -> None:
        self.capacity = capacity
        self.edges: dict[bytes, EdgeCounts] = {}
        self.rest = _none()

    def count(self, tgid: int, service: str, *durations: int, port: int = 80, outcome: int = 0) -> None:
        """Exchanges of a server of these durations in ns, with 7 bytes of request and 9 of response each."""
        key = np.zeros((), KEY)
        key["process"]["tgid"], key["server_port"], key["role"], key["transport"] = tgid, port, 2, 6
        key["outcome"] = outcome
        counts = self.edges.get(key.tobytes())
        if counts is None:
            counts = self.rest if len(self.edges) >= self.capacity else _none()
            if counts is not self.rest:
                self.edges[key.tobytes()] = counts
        counts.comms[0, : len(service)] = list(service.encode())
        counts.sums[0] += np.array([7 * len(durations), 9 * len(durations), sum(durations), 0, 0, 0], np.uint64)
        np.add.at(counts.slots[0, 0], slots_of(np.array(durations, np.uint64)), 1)

    def parts(self) -> Iterator[tuple[npt.NDArray[np.uint8], EdgeCounts]]:
        """All but the last one in one part."""
        keys, counts = list(self.edges), list(self.edges.values())
        for these in (slice(0, -1), slice(-1, None)):
            if keys[these]:
                yield np.frombuffer(b"".join(keys[these]), np.uint8).reshape(-1, KEY.itemsize), _together(counts[these])
        none = _none()  # as the kernel's last part may be
        yield np.zeros((0, KEY.itemsize), np.uint8), EdgeCounts(none.comms[:0], none.sums[:0], none.slots[:0])

    def take(self, key: bytes) -> EdgeCounts | None:
        return self.edges.pop(key, None)

    def overflow(self) -> EdgeCounts:
        return self.rest


def _none() -> EdgeCounts:
    return EdgeCounts(
        np.zeros((1, 16), np.uint8),
        np.zeros((1, len(SUMS)), np.uint64),
        np.zeros((1, len(HISTOGRAMS), SLOTS), np.uint32),
    )


def accounts(kernel: Kernel, limit: int = 100) -> EdgeAccounts:
    return EdgeAccounts(kernel, NAMES, described, start=1_000, limit=limit)


def _together(counts: list[EdgeCounts]) -> EdgeCounts:
    return EdgeCounts(
        np.concatenate([of.comms for of in counts]),
        np.concatenate([of.sums for of in counts]),
        np.concatenate([of.slots for of in counts]),
    )


def by_service(found: EdgeAccounts) -> dict[str, tuple[int, int]]:
    """Count and bytes of requests, by service; that of the overflow is empty."""
    return {
        str(dict(c.series.resource).get("service.name", "")): (int(c.slots[0].sum()), int(c.sums[0]))
        for c in found.series()
    }


def test_processes_of_a_service_are_one_series() -> None:
    kernel = Kernel()
    found = accounts(kernel)
    for tgid in (1, 2, 3):
        kernel.count(tgid, "shop", 1_000_000, 2_000_000)
    kernel.count(4, "till", 5_000)
    found.look(2_000)
    assert by_service(found) == {"shop": (6, 42), "till": (1, 7)}


def test_counts_are_cumulative_over_looks_and_have_the_start_of_what_was_not_looked_at_before() -> None:
    kernel = Kernel()
    found = accounts(kernel)
    kernel.count(1, "shop", 1_000_000)
    found.look(2_000)
    kernel.count(1, "shop", 1_000_000)
    kernel.count(2, "till", 1_000_000)
    found.look(3_000)
    found.look(4_000)
    assert by_service(found) == {"shop": (2, 14), "till": (1, 7)}
    assert {str(c.series.resource[0][1]): c.start for c in found.series()} == {"shop": 1_000, "till": 2_000}


def test_buckets_of_the_kernel_may_wrap() -> None:
    kernel = Kernel()
    found = accounts(kernel)
    kernel.count(1, "shop", 1_000_000)
    (counts,) = kernel.edges.values()
    slot = int(np.flatnonzero(counts.slots[0, 0])[0])
    counts.slots[0, 0, slot] = 2**32 - 1
    found.look(2_000)
    counts.slots[0, 0, slot] = 4  # five more
    found.look(3_000)
    assert by_service(found)["shop"][0] == 2**32 - 1 + 5


def test_an_idle_edge_is_taken_out_of_the_kernel_with_its_last_counts() -> None:
    kernel = Kernel()
    found = accounts(kernel)
    kernel.count(1, "shop", 1_000_000)
    for look in range(30):
        found.look(2_000 + look)
    assert not kernel.edges
    kernel.count(1, "shop", 1_000_000)
    found.look(5_000)
    assert by_service(found) == {"shop": (2, 14)}


def test_when_the_kernel_is_nearly_full_idle_edges_go_soon() -> None:
    kernel = Kernel(capacity=10)
    found = accounts(kernel)
    for tgid in range(8):
        kernel.count(tgid, "shop", 1_000_000)
    for look in range(3):
        found.look(2_000 + look)
    assert not kernel.edges
    assert by_service(found) == {"shop": (8, 56)}


def test_what_has_no_room_in_the_kernel_is_counted_all_the_same() -> None:
    kernel = Kernel(capacity=3)
    found = accounts(kernel)
    for tgid in range(10):
        kernel.count(tgid, "shop", 1_000_000)
    found.look(2_000)
    assert by_service(found) == {"shop": (3, 21), "": (7, 49)}


def test_a_hundred_thousand_services_take_no_more_series_than_there_may_be() -> None:
    kernel = Kernel()
    found = accounts(kernel, limit=50)
    for number in range(100):
        kernel.count(number, f"s{number}", 1_000_000)
    found.look(2_000)
    counted = by_service(found)
    assert len(counted) == 50
    assert counted[""] == (51, 51 * 7)
    assert sum(count for count, _ in counted.values()) == 100


def test_a_series_that_wakes_does_not_give_way_to_one_that_comes_in_the_same_look() -> None:
    kernel = Kernel()
    found = accounts(kernel, limit=3)
    kernel.count(1, "old", 1_000_000)
    kernel.count(2, "older", 1_000_000)
    for look in range(60):
        found.look(2_000 + look)
    for tgid, service in enumerate(("old", "new", "newer"), 3):
        kernel.count(tgid, service, 1_000_000)
    found.look(9_000)
    assert by_service(found) == {"old": (2, 14), "new": (1, 7), "": (1, 7)}


def test_series_that_have_been_idle_for_long_give_way_and_begin_anew() -> None:
    kernel = Kernel()
    found = accounts(kernel, limit=3)
    kernel.count(1, "old", 1_000_000)
    kernel.count(2, "older", 1_000_000)
    for look in range(60):
        found.look(2_000 + look)
    kernel.count(3, "new", 1_000_000)
    found.look(9_000)
    assert by_service(found) == {"new": (1, 7)}
    kernel.count(1, "old", 1_000_000)
    found.look(10_000)
    starts = {str(c.series.resource[0][1]): c.start for c in found.series()}
    assert (by_service(found)["old"], starts["old"]) == ((1, 7), 9_000)


RECORD = np.dtype(
    [
        ("connection", [
            ("local_address", "u1", 16), ("remote_address", "u1", 16), ("local_port", "<u2"), ("remote_port", "<u2"),
            ("role", "u1"), ("flags", "u1"),
        ]),
        ("process", [("start_time", "<u8"), ("tgid", "<u4"), ("exec_id", "<u4"), ("comm", "u1", 16)]),
        *((name, "<u8") for name in (
            "arrived", "request_start", "request_end", "response_start", "response_end", "request_size", "response_size",
        )),
        ("outcome", "u1"),
    ]
)  # fmt: skip


def record(tgid: int, role: int, began: int, ended: int, outcome: int = 0) -> np.void:
    """An exchange with a queue of 10 us and a processing of 20 us."""
    found = np.zeros((), RECORD)
    found["connection"]["local_port"], found["connection"]["remote_port"] = 6379, 50_000
    found["connection"]["role"], found["process"]["tgid"] = role, tgid
    found["connection"]["remote_address"][15] = 9
    found["process"]["comm"][:4] = list(b"shop")
    found["arrived"], found["request_start"], found["request_end"] = began, began + 10_000, began + 11_000
    found["response_start"], found["response_end"] = (0 if outcome else began + 31_000), ended
    found["request_size"], found["response_size"], found["outcome"] = 7, 9, outcome
    return found[()]  # type: ignore[no-any-return]


def test_exchanges_that_the_kernel_does_not_count_join_the_series_of_those_that_it_does() -> None:
    kernel = Kernel()
    found = accounts(kernel)
    records = np.array([record(1, 2, 1_000_000, 2_000_000), record(2, 2, 5_000_000, 7_000_000)], RECORD)
    fine = Fragment("GET", (("network.protocol.name", "redis"),))
    found.add(grouped(records, [told(fine)] * 2, NAMES))
    found.add(grouped(records[:1], [told(fine)], NAMES))
    found.look(2_000)
    (counts,) = found.series()
    assert counts.series == Series(
        (("service.name", "shop"),), SpanKind.SERVER, 6379, "tcp", "redis", "success", "", "external"
    )
    assert counts.sums.tolist() == [21, 27, 4_000_000, 30_000, 60_000, 0]
    assert counts.slots.sum(axis=1).tolist() == [3, 3, 3]


def test_what_a_parser_tells_and_how_an_exchange_ended_make_series_of_their_own() -> None:
    found = accounts(Kernel())
    records = np.array([record(1, 2, 0, 9_000), *(record(1, 2, 0, 9_000, outcome) for outcome in (0, 0, 3))], RECORD)
    redis = ("network.protocol.name", "redis")
    operations = [
        Fragment("GET", (redis,)),
        Fragment("GET", (redis, ("error.type", "WRONGTYPE")), StatusCode.ERROR),
        Fragment("GET", (redis, ("error.type", "MOVED")), StatusCode.ERROR),
        Fragment("GET", (redis,)),
    ]
    found.add(grouped(records, [told(operation) for operation in operations], NAMES))
    found.look(2_000)
    assert sorted((c.series.status, c.series.error, int(c.slots[0].sum())) for c in found.series()) == [
        ("", "timeout", 1),
        ("error", "", 1),
        ("redirection", "", 1),
        ("success", "", 1),
    ]
    assert {int(c.slots[2].sum()) for c in found.series() if c.series.error} == {0}, "no processing without a response"


def encoded(series: list[SeriesCounts]) -> EncodedBatch:
    request = MetricsRequest(6, REST)
    add_exchanges(request, series)
    return request.batch()


def points(*durations: int) -> ExportMetricsServiceRequest:
    slots = np.zeros((len(HISTOGRAMS), SLOTS), np.uint64)
    np.add.at(slots[0], slots_of(np.array(durations, np.uint64)), 1)
    sums = np.array([10, 20, sum(durations), 0, 0, 0], np.uint64)
    series = Series((("service.name", "shop"),), SpanKind.CLIENT, 80, "tcp", "redis", "success", "", "machine")
    batch = encoded([SeriesCounts(series, 5, sums, slots)])
    request = ExportMetricsServiceRequest.FromString(batch.data)
    (resource,) = request.resource_metrics
    found = [
        point
        for metric in resource.scope_metrics[0].metrics
        for point in (*metric.exponential_histogram.data_points, *metric.sum.data_points)
    ]
    assert len(found) == len(batch)
    return request


def histogram_of(request: ExportMetricsServiceRequest):  # type: ignore[no-untyped-def]
    (metric,) = [
        m for m in request.resource_metrics[0].scope_metrics[0].metrics if m.name == "wirespan.exchange.duration"
    ]
    (point,) = metric.exponential_histogram.data_points
    return point


def test_a_point_has_the_buckets_of_the_data_model() -> None:
    point = histogram_of(points(1_000, 1_000_000, 1_000_000, 3_000_000))
    assert (point.count, point.zero_count, point.scale, point.sum) == (4, 1, SCALE, 0.005001)
    bounds = {
        (2 ** ((point.positive.offset + i) / 8), 2 ** ((point.positive.offset + i + 1) / 8)): count
        for i, count in enumerate(point.positive.bucket_counts)
        if count
    }
    (one, two) = sorted(bounds)
    assert one[0] < 0.001 <= one[1]
    assert two[0] < 0.003 <= two[1]
    assert (bounds[one], bounds[two]) == (2, 1)


@pytest.mark.parametrize("lowest", [4_000, 5_000, 1_000_000])
def test_more_than_160_buckets_are_joined_which_is_exact(lowest: int) -> None:
    durations = [lowest, 123_456_789, 50_000_000_000]
    point = histogram_of(points(*durations))
    assert len(point.positive.bucket_counts) <= MAX_BUCKETS
    base = 2 ** (2**-point.scale)
    for duration in durations:
        (index,) = [
            i
            for i in range(len(point.positive.bucket_counts))
            if base ** (point.positive.offset + i) < duration / 1e9 <= base ** (point.positive.offset + i + 1)
        ]
        assert point.positive.bucket_counts[index] == 1


def test_overflow_is_named_as_the_sdks_name_it() -> None:
    slots = np.ones((len(HISTOGRAMS), SLOTS), np.uint64)
    batch = encoded([SeriesCounts(OVERFLOW, 5, np.ones(len(SUMS), np.uint64), slots)])
    (resource,) = ExportMetricsServiceRequest.FromString(batch.data).resource_metrics
    assert resource.resource.attributes[0].value.string_value == "unknown_service"
    (point,) = resource.scope_metrics[0].metrics[0].exponential_histogram.data_points
    assert [(a.key, a.value.bool_value) for a in point.attributes] == [("otel.metric.overflow", True)]
