"""Ids of requests begin with their month, where the ledger in Postgres is cut, and rise within a worker."""

from pathlib import Path

from gateway_under_test import Gateway


def test_ids_begin_with_the_month_and_rise_over_its_end(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    service, clock = gateway.service, gateway.clock
    # The clock begins on 14 November 2023.
    ids = [service.next_request_id() for _ in range(300)]
    assert {name[:11] for name in ids} == {"req-202311-"}
    clock.advance(17 * 86_400.0)
    service.check()
    ids += [service.next_request_id() for _ in range(2)]
    assert ids[-1].startswith("req-202312-")
    assert ids == sorted(set(ids))
