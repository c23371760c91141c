"""What becomes of a request whose replica is lost before the first byte."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripted_upstream import UpstreamThread
from swell.policy.ejection import FAILURES_TO_EJECT
from swell.testing.upstream_script import Script
from swell_process import Reply, SwellProcess

pytestmark = pytest.mark.process


def test_a_request_waits_for_the_replica_that_is_only_busy(
    swell_up: Callable[..., SwellProcess], tmp_path: Path, eventually: Any
) -> None:
    with (
        UpstreamThread(tmp_path / "busy.jsonl", Script(hang_after=-1)) as busy,
        UpstreamThread(tmp_path / "broken.jsonl", Script(die_after=-1)) as broken,
    ):
        urls = f'"{broken.url}", "{busy.url}"'
        server = swell_up(f"models: [{{name: m, engine: external, endpoints: [{urls}], max_in_flight: 1}}]")
        replies: list[Reply] = []
        asking = [threading.Thread(target=lambda: replies.append(server.chat())) for _ in range(2)]
        asking[0].start()
        eventually(lambda: busy.in_flight == 1)
        before = len(broken.seen)
        asking[1].start()
        eventually(lambda: len(broken.seen) > before)
        busy.set_script(Script())
        busy.release()
        for thread in asking:
            thread.join(20)
        assert [reply.status for reply in replies] == [200, 200]
        assert len(broken.seen) == before + 1
        assert [row["status"] for row in server.command("usage")] == ["settled", "settled"]


def test_a_request_waits_for_the_replica_that_is_ejected_rather_than_ask_the_one_that_failed_it(
    swell_up: Callable[..., SwellProcess], tmp_path: Path
) -> None:
    with (
        UpstreamThread(tmp_path / "one.jsonl") as one,
        UpstreamThread(tmp_path / "other.jsonl", Script(die_after=-1)) as other,
    ):
        urls = f'"{one.url}", "{other.url}"'
        server = swell_up(f"models: [{{name: m, engine: external, endpoints: [{urls}], routing: round_robin}}]")
        while len(other.seen) < FAILURES_TO_EJECT:
            assert server.chat().status == 200
        one.set_script(Script(die_after=-1))
        other.set_script(Script())
        assert server.chat().status == 200
        assert server.command("usage", "--limit", "1")[0]["status"] == "settled"
