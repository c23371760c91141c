"""What becomes of a request whose replica is lost before the first byte."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripted_upstream import UpstreamThread
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
