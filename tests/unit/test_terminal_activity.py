"""What the table counts: exactly, over a window, with quantiles within their tolerance, and never more than it has room for."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wirespan.exporters.terminal.activity import ROWS, Activity, Edge, Row, labels
from wirespan.exporters.terminal.window import PER_OCTAVE, DurationWindow, SlidingSums
from wirespan.pipeline.spans import (
    Fragment,
    FragmentColumn,
    FragmentTable,
    ResourceTable,
    SpanBatch,
    SpanKind,
    StatusCode,
)

#: half a bucket
TOLERANCE = 2 ** (0.5 / PER_OCTAVE) - 1
CLIENT, SERVER = SpanKind.CLIENT, SpanKind.SERVER


def spans(
    *described: tuple[str, SpanKind, int, float],
    failed: bool = False,
    queue: float | None = None,
    protocol: str = "http",
    client: str = "10.0.0.1",
    server: str = "10.0.0.2",
) -> SpanBatch:
    """Of each span service, kind, server port and duration in seconds; the rest is the same for all."""
    count = len(described)
    resources, endpoints, operations = ResourceTable(), FragmentTable(), FragmentTable()
    place = endpoints.intern(
        Fragment(attributes=(("server.address", server), ("client.address", client), ("network.transport", "tcp")))
    )
    status = StatusCode.ERROR if failed else StatusCode.UNSET
    operation = operations.intern(Fragment("GET", (("network.protocol.name", protocol),), status))
    duration = np.array([round(seconds * 1e9) for *_, seconds in described], np.uint64)
    return SpanBatch(
        trace_id=np.ones((count, 2), np.uint64),
        span_id=np.arange(1, count + 1, dtype=np.uint64),
        parent_span_id=np.zeros(count, np.uint64),
        start=np.full(count, 10**18, np.uint64),
        end=np.uint64(10**18) + duration,
        kind=np.array([kind for _, kind, *_ in described], np.uint8),
        resource=np.array([resources.intern({"service.name": service}) for service, *_ in described], np.int64),
        resources=resources,
        fragments=(
            FragmentColumn(endpoints, np.full(count, place)),
            FragmentColumn(operations, np.full(count, operation)),
        ),
        numbers={
            "server.port": np.array([port for *_, port, _ in described], np.int64),
            "wirespan.queue.duration": np.full(count, np.nan if queue is None else queue),
        },
    )


def only(rows: list[Row]) -> Row:
    (row,) = rows
    return row


def test_a_row_is_a_service_that_calls_or_serves_a_peer_by_a_protocol() -> None:
    activity = Activity(0)
    activity.add(spans(("shop", CLIENT, 80, 0.1), ("shop", SERVER, 80, 0.1), ("shop", CLIENT, 81, 0.1)), 0.5)
    activity.add(spans(("shop", CLIENT, 80, 0.1), protocol="redis"), 0.5)
    activity.add(spans(("shop", CLIENT, 80, 0.1), server="10.0.0.3"), 0.5)
    activity.add(spans(("shop", CLIENT, 80, 0.1)), 0.5)
    rows = activity.recent(1, 100)
    assert len(rows) == 5
    assert (rows[0].edge, rows[0].requests) == (Edge("shop", CLIENT, "10.0.0.2", 80, "10.0.0.1", "http"), 2)
    assert {row.requests for row in rows[1:]} == {1}


def test_an_unknown_protocol_is_called_by_its_transport() -> None:
    activity = Activity(0)
    batch = spans(("shop", CLIENT, 80, 0.1))
    batch.fragments = batch.fragments[:1]
    activity.add(batch, 0)
    edge = only(activity.recent(1, 9)).edge
    assert edge is not None
    assert edge.protocol == "tcp"


def test_errors_are_counted_and_told_from_old_ones() -> None:
    activity = Activity(0)
    activity.add(spans(("shop", SERVER, 80, 0.1), failed=True), 0)
    activity.add(spans(("shop", SERVER, 80, 0.1), ("shop", SERVER, 80, 0.1)), 200)
    row = only(activity.recent(200, 9))
    assert (row.requests, row.errors, row.recent_errors) == (3, 1, 0)


def test_a_rate_is_that_of_the_last_seconds() -> None:
    activity = Activity(0)
    for tenth in range(300):
        activity.add(spans(*[("shop", SERVER, 80, 0.1)] * (10 if tenth < 100 else 2)), tenth / 10)
    assert only(activity.recent(29.99, 9)).rate == pytest.approx(20, rel=0.05)
    assert activity.totals(29.99).rate == pytest.approx(20, rel=0.05)
    assert activity.totals(40).rate == 0


def test_a_single_request_right_after_the_start_is_no_large_rate() -> None:
    activity = Activity(0)
    activity.add(spans(("shop", SERVER, 80, 0.1)), 0.001)
    assert activity.totals(0.002).rate == 1


def test_what_was_quiet_for_a_minute_or_so_is_not_shown_but_kept() -> None:
    activity = Activity(0)
    activity.add(spans(("shop", SERVER, 80, 0.1)), 0)
    assert activity.recent(59, 9)
    assert not activity.recent(81, 9)
    assert only(activity.all_time(9)).requests == 1


@settings(deadline=None)
@given(st.lists(st.floats(2e-7, 900), min_size=1, max_size=200))
def test_quantiles_are_within_half_a_bucket(durations: list[float]) -> None:
    window = DurationWindow(2, slots=3, seconds=10, now=0)
    nanoseconds = np.array([round(seconds * 1e9) for seconds in durations])
    window.add(np.ones(len(durations), np.int64), nanoseconds)
    for share, found in zip((0.5, 0.99), window.quantiles(1, 0.5, 0.99), strict=True):
        wanted = np.quantile(nanoseconds, share, method="inverted_cdf") / 1e9
        assert found == pytest.approx(wanted, rel=TOLERANCE * 1.001)
    assert window.quantiles(0, 0.5) == [None]


def test_durations_that_are_out_of_range_count_in_the_last_bucket() -> None:
    window = DurationWindow(1, slots=1, seconds=1, now=0)
    window.add(np.zeros(3, np.int64), np.array([0, 1, 10**15], np.uint64))
    (shortest, longest) = window.quantiles(0, 0.5, 1)
    assert shortest is not None
    assert longest is not None
    assert shortest < 2e-7
    assert longest > 1000


def test_a_window_forgets_slot_by_slot_what_the_total_keeps() -> None:
    sums = SlidingSums(1, slots=3, seconds=1, now=0)
    seen = []
    for second in range(6):
        sums.advance(second)
        if second < 3:
            sums.add(np.zeros(2, np.int64))
        seen.append(int(sums.recent()[0]))
    assert seen == [2, 4, 6, 4, 2, 0]
    assert (sums.total[0], sums.covered(5.5)) == (6, 2.5)


def test_rows_come_by_what_happens_now_and_both_ends_of_an_edge_together() -> None:
    activity = Activity(0)
    activity.add(spans(*[("old", CLIENT, 80, 0.1)] * 50), 0)
    calls = [("shop", CLIENT, 6379, 0.1), ("redis", SERVER, 6379, 0.1)] * 3 + [("cart", CLIENT, 81, 0.1)] * 9
    activity.add(spans(*calls), 30)
    shown = [row.edge.service for row in activity.recent(30.5, 9) if row.edge]
    assert shown == ["cart", "shop", "redis", "old"]


def test_rows_come_by_errors_if_that_is_wanted() -> None:
    activity = Activity(0)
    activity.add(spans(*[("busy", CLIENT, 80, 0.1)] * 50), 0)
    activity.add(spans(("broken", CLIENT, 81, 0.1), failed=True), 0)
    shown = [row.edge.service for row in activity.recent(1, 9, by_errors=True) if row.edge]
    assert shown == ["broken", "busy"]


def test_edges_that_find_no_place_on_the_screen_are_summed_up() -> None:
    activity = Activity(0)
    activity.add(spans(*[(f"service-{n}", CLIENT, 80, 0.1) for n in range(10) for _ in range(n + 1)]), 0)
    *shown, others = activity.recent(1, 3)
    assert [row.requests for row in shown] == [10, 9, 8]
    assert (others.edge, others.requests, others.p50) == (None, 55 - 27, None)


def crowd(count: int) -> SpanBatch:
    return spans(*[(f"service-{n}", CLIENT, 80, 0.1) for n in range(count)])


def test_10_000_services_are_counted_and_only_some_of_them_kept() -> None:
    activity = Activity(0)
    batch = crowd(10_000)
    for second in range(20):
        activity.add(batch, second)
    rows = activity.all_time(10**9)
    assert len(rows) == ROWS
    assert sum(row.requests for row in rows) == activity.totals(20).spans == 200_000
    assert sum(row.requests for row in activity.recent(20, 5)) == 200_000


def test_the_busiest_edge_gets_a_row_though_it_comes_late() -> None:
    activity = Activity(0)
    activity.add(crowd(1_000), 0)
    for tenth in range(30):
        activity.add(spans(*[("late", SERVER, 81, 0.1)] * 10), 2 + tenth / 10)
        activity.add(crowd(1_000), 2 + tenth / 10)
    first = activity.recent(5, 1)[0]
    assert first.edge is not None
    assert (first.edge.service, first.p50) == ("late", pytest.approx(0.1, rel=TOLERANCE))


def test_quiet_edges_make_room_first() -> None:
    activity = Activity(0)
    activity.add(crowd(ROWS // 2), 0)
    busy = spans(*[(f"busy-{n}", CLIENT, 80, 0.1) for n in range(ROWS // 2 - 1)])
    activity.add(busy, 100)
    activity.add(spans(("new", CLIENT, 80, 0.1)), 101)
    services = {row.edge.service for row in activity.all_time(10**9) if row.edge}
    assert "new" in services
    assert {f"busy-{n}" for n in range(ROWS // 2 - 1)} <= services
    assert sum(row.requests for row in activity.all_time(10**9)) == ROWS


def test_many_tables_are_not_mixed_up_and_not_kept() -> None:
    activity = Activity(0)
    for number in range(1_000):
        activity.add(spans((f"service-{number % 7}", CLIENT, 80, 0.1), failed=number % 7 == 3), number / 1_000)
    rows = {row.edge.service: row for row in activity.recent(1, 100) if row.edge}
    assert {service: row.requests for service, row in rows.items()} == {
        f"service-{n}": 143 if n < 6 else 142 for n in range(7)
    }
    assert {service for service, row in rows.items() if row.errors} == {"service-3"}
    assert len(activity._contributions) <= 3


def test_a_peer_is_called_by_its_service_if_that_is_certain() -> None:
    shop = Edge("shop", SERVER, "127.0.0.1", 80, "127.0.0.1", "http")
    calling = [Edge(name, CLIENT, "127.0.0.1", 80, "127.0.0.1", "http") for name in ("curl", "wget")]
    far = Edge("shop", CLIENT, "fd00::1", 443, "fd00::2", "tcp")
    from_far = Edge("shop", SERVER, "10.0.0.1", 80, "10.9.9.9", "http")
    assert labels(dict.fromkeys((shop, calling[0], far, from_far), False)) == {
        shop: ("shop:80", "curl"),
        calling[0]: ("curl", "shop:80"),
        far: ("shop", "[fd00::1]:443"),
        from_far: ("shop:80", "10.9.9.9"),
    }
    assert labels(dict.fromkeys((shop, *calling), False))[shop] == ("shop:80", "curl +1")
    twin = Edge("twin", SERVER, "127.0.0.1", 80, "127.0.0.1", "http")  # in another network namespace
    assert labels(dict.fromkeys((shop, twin, *calling), False))[calling[0]] == ("curl", "127.0.0.1:80")
    assert labels({shop: True}) == {shop: ("shop:80", "several hosts")}
    assert labels({shop: True, calling[0]: False})[shop] == ("shop:80", "curl, other hosts")


def test_counting_a_thousand_spans_takes_less_than_two_milliseconds() -> None:
    """5,000 spans a second are to cost less than 2 % of a core: 4 µs each, of which the frame needs the most."""
    activity = Activity(0)
    batch = spans(*[(f"service-{n % 40}", CLIENT, 80 + n % 3, 0.1) for n in range(1_000)])
    activity.add(batch, 0)
    took = []
    for _ in range(50):
        began = time.thread_time()
        activity.add(batch, 0.1)
        took.append(time.thread_time() - began)
    assert sorted(took)[25] < 0.002


def test_a_peer_is_called_by_its_service_also_if_that_has_no_place_on_the_screen() -> None:
    activity = Activity(0)
    calls = [("web", CLIENT, 80, 0.1)] * 5 + [("curl", CLIENT, 80, 0.1)] + [("shop", SERVER, 80, 0.1)] * 6
    activity.add(spans(*calls), 0)
    first, second, others = activity.recent(1, 2)
    assert (first.service, first.peer, second.service, second.peer) == ("shop:80", "web +1", "web", "shop:80")
    assert (others.service, others.requests) == ("others", 1)


def test_a_server_of_thousands_of_clients_is_one_row() -> None:
    activity = Activity(0)
    for number in range(3_000):
        batch = spans(("shop", SERVER, 80, 0.1), client=f"10.1.{number // 250}.{number % 250}")
        activity.add(batch, number / 1_000)
    row = only(activity.recent(3, 9))
    assert (row.service, row.peer, row.requests) == ("shop:80", "several hosts", 3_000)


def test_a_transport_of_its_own_is_a_row_of_its_own() -> None:
    activity = Activity(0)
    for transport in ("tcp", "udp"):
        batch = spans(("shop", SERVER, 53, 0.1))
        table = FragmentTable()
        place = table.intern(Fragment(attributes=(("server.address", "::1"), ("network.transport", transport))))
        batch.fragments = (FragmentColumn(table, np.array([place])),)
        activity.add(batch, 0)
    assert {row.edge.protocol for row in activity.recent(1, 9) if row.edge} == {"tcp", "udp"}
