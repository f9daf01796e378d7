"""What is counted for the line that the log has every minute."""

from __future__ import annotations

from threading import Thread

from support.batches import make_batch
from support.otlp_batches import batch_of
from wirespan.pipeline.spans import StatusCode
from wirespan.service.tally import Tally


def failed(batch: object) -> int:
    (column,) = batch.fragments  # type: ignore[attr-defined]
    return sum(column.table.fragments[index].status is StatusCode.ERROR for index in column.ids)


def test_spans_errors_and_the_busiest_services_are_counted() -> None:
    tally = Tally()
    batches = [make_batch(1_001, seed) for seed in range(5)]
    for batch in batches:
        tally.consume(batch)
    counted = tally.fields()
    assert (counted["spans"], counted["errors"]) == (5_005, sum(map(failed, batches)))
    assert counted["services"] == "shop 1670, täglich 1670, 日本 1665"


def test_counting_begins_anew_each_time() -> None:
    tally = Tally()
    tally.consume(batch_of(3))
    assert tally.fields()["services"] == "service-0 3"
    assert tally.fields() == {"spans": 0, "per_second": 0.0, "errors": 0}


def test_only_the_first_three_services_are_named() -> None:
    tally = Tally()
    tally.consume(batch_of(10, resources=5))
    assert tally.fields()["services"] == "service-0 2, service-1 2, service-2 2"


def test_a_crowd_of_services_and_tables_is_counted_and_not_kept() -> None:
    tally = Tally()
    for _ in range(40):
        tally.consume(batch_of(10_000, resources=10_000))
    assert len(tally._services) <= 4_096
    assert len(tally._failures) <= 1
    assert tally.fields()["spans"] == 400_000


def test_receivers_may_count_at_the_same_time() -> None:
    tally, batch = Tally(), batch_of(10)
    threads = [Thread(target=lambda: [tally.consume(batch) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.fields()["spans"] == 20_000
