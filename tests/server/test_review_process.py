"""The review's own process: behind everything else, ended with whoever wants it, and read in small pages."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import msgspec
import psutil
import pytest

from review_catalogue import WRONG, write_catalogue
from swell.errors import SwellError, UserError
from swell.server.review_ledger import PAGE_ROWS, ReviewLedger
from swell.server.review_process import ReviewProcess
from swell.server.review_report import ReviewRequest
from swell.server.review_usage import traffic_of
from swell.server.review_worker import NICENESS, OOM_SCORE, answer_to
from swell.spec import ModelSpec, parse_spec
from swell.state.records import SpoolPosition, UsageFilter
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import usage_change

NOW_MS = 1_793_491_200_000
HOUR_MS = 3_600_000


class Ledger:
    """What the admin API answers about usage, from a store in memory; `hold` keeps answers back."""

    def __init__(self, path: Path) -> None:
        self.store = MemoryStore()
        self.path = path
        self.status = 200
        self.asked: list[int] = []
        self.reached = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        ledger = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["content-length"])))
                ledger.reached.set()
                ledger.hold.wait(60)
                ledger.asked.append(query["limit"])
                if not ledger.status:
                    return  # hangs up
                content = ledger.answer(query) if ledger.status == 200 else b'{"error": "not now"}'
                self.send_response(ledger.status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Silent."""

            def address_string(self) -> str:
                return "unix"

        class Server(ThreadingUnixStreamServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Who asked is gone, as some tests want."""

        self._server = Server(str(path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, query: dict[str, Any]) -> bytes:
        where = msgspec.convert(query["where"], UsageFilter)
        return msgspec.json.encode(self.store.list_usage(where, query["limit"]))

    def fill(self, requests: int, seconds: float) -> None:
        changes = [
            usage_change(
                f"r{number}", "pair", model="chat", status="settled", prompt_tokens=500, completion_tokens=50,
                reserved_at_unix_ms=NOW_MS - int(seconds * 1000 * (requests - number) / requests),
            )
            for number in range(requests)
        ]  # fmt: skip
        self.store.apply_usage(changes, SpoolPosition("w1", 1, 1))

    def fill_spread(self, hours: int) -> None:
        """As many hours of a tenant on one replica, where most is cached, as over four, where little is."""
        changes = [
            usage_change(
                f"h{hour}-{number}", "pair", model="chat", status="settled", prompt_tokens=500, completion_tokens=50,
                tenant="search", cached_tokens=300 if hour <= hours else 100,
                replica_id="chat-0" if hour <= hours else f"chat-{number % 4}",
                reserved_at_unix_ms=(NOW_MS // HOUR_MS - 2 * hours - 1 + hour) * HOUR_MS + number * 60_000,
            )
            for hour in range(2 * hours + 1)
            for number in range(40)
        ]  # fmt: skip
        self.store.apply_usage(changes, SpoolPosition("w1", 1, 2))

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="swell-"))  # a Unix socket's path is short
    yield made
    shutil.rmtree(made)


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    with closing(Ledger(folder / "admin.sock")) as running:
        yield running


def model() -> ModelSpec:
    return parse_spec(WRONG, origin="swell.yaml").models[0]


def request(folder: Path) -> ReviewRequest:
    profiles, prices = write_catalogue(folder)
    return ReviewRequest(
        models=[model().model_dump(mode="json")],
        since_unix_ms=NOW_MS - 3_600_000,
        days=7,
        profiles=str(profiles),
        prices=str(prices),
        command="swell review",
    )


def children() -> list[psutil.Process]:
    """Reviews that run as children of this process; what has ended and waits to be reaped is none."""
    living = (each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE)
    return [each for each in living if "swell.server.review_worker" in " ".join(each.cmdline())]


def oom_score_of(process: psutil.Process) -> int:
    return int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())


def test_pages_are_small_and_the_server_is_left_in_peace_between_them(ledger: Ledger) -> None:
    ledger.fill(25, 600.0)
    pauses: list[float] = []
    with closing(ReviewLedger(ledger.path, pauses.append)) as reader:
        traffic = traffic_of(reader, model(), NOW_MS - 3_600_000, page_rows=10)
    assert traffic is not None
    assert len(traffic) == 25
    assert ledger.asked.count(10) >= 3
    assert len(pauses) == len(ledger.asked)
    assert all(pause > 0 for pause in pauses)


def test_a_server_that_does_not_answer_is_no_verdict(ledger: Ledger) -> None:
    ledger.status = 503
    with closing(ReviewLedger(ledger.path)) as reader, pytest.raises(SwellError, match="not now") as caught:
        reader.usage(UsageFilter(), 1)
    assert not isinstance(caught.value, UserError)
    ledger.status = 0
    with closing(ReviewLedger(ledger.path)) as reader, pytest.raises(SwellError, match="did not answer"):
        reader.usage(UsageFilter(), 1)


@pytest.mark.process
async def test_a_process_of_its_own_makes_the_review(folder: Path, ledger: Ledger) -> None:
    ledger.fill(120, 1200.0)
    found = await ReviewProcess(ledger.path, folder).report(request(folder))
    assert found.models == ("chat",)
    assert found.changes[0].recommended
    assert found.saving_usd_nanos_per_month > 0
    assert found.command == "swell review"
    assert set(ledger.asked) <= {PAGE_ROWS, 1}
    assert children() == []


def test_tenants_that_miss_prefix_caches_are_in_the_report(folder: Path, ledger: Ledger) -> None:
    ledger.fill_spread(4)
    asked = msgspec.structs.replace(request(folder), since_unix_ms=NOW_MS - 12 * HOUR_MS)
    with closing(ReviewLedger(ledger.path, lambda seconds: None)) as reader:
        answer = answer_to(asked, reader)
    assert answer.report is not None
    (miss,) = answer.report.misses
    assert (miss.model, miss.tenant, answer.report.miss_count) == ("chat", "search", 1)
    assert (miss.cached_now, miss.cached_at_most) == (0.2, 0.6)
    assert miss.saving_usd_nanos_per_month > 0


@pytest.mark.process
async def test_too_little_traffic_is_a_refusal_with_its_reason(folder: Path, ledger: Ledger) -> None:
    ledger.fill(3, 600.0)
    with pytest.raises(UserError, match=r"^nothing to review: chat: 3 requests in the last 7 days, and 20"):
        await ReviewProcess(ledger.path, folder).report(request(folder))


@pytest.mark.process
async def test_it_runs_behind_everything_else_and_ends_when_nobody_wants_it(folder: Path, ledger: Ledger) -> None:
    ledger.hold.clear()
    environ = {**os.environ, "ALERT_SECRET": "whsec_secret"}
    making = asyncio.ensure_future(ReviewProcess(ledger.path, folder, environ).report(request(folder)))
    await asyncio.to_thread(ledger.reached.wait, 60)
    (child,) = children()
    assert child.nice() == NICENESS
    assert oom_score_of(child) == OOM_SCORE
    assert "ALERT_SECRET" not in child.environ()
    assert os.getpgid(child.pid) != os.getpgid(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert not child.is_running()


@pytest.mark.process
async def test_what_takes_too_long_is_ended_and_says_so(folder: Path, ledger: Ledger) -> None:
    ledger.hold.clear()
    with pytest.raises(UserError, match=r"it was not done within .* hours; look back over fewer days"):
        await ReviewProcess(ledger.path, folder, limit_seconds=0.5).report(request(folder))
    assert children() == []


@pytest.mark.process
async def test_a_process_that_is_killed_may_be_started_again(folder: Path, ledger: Ledger) -> None:
    ledger.hold.clear()
    making = asyncio.ensure_future(ReviewProcess(ledger.path, folder).report(request(folder)))
    await asyncio.to_thread(ledger.reached.wait, 60)
    children()[0].kill()
    problem = "its process ended with -9 and without an answer; see: swell logs review"
    with pytest.raises(SwellError, match=problem) as caught:
        await making
    assert not isinstance(caught.value, UserError)


@pytest.mark.process
def test_it_ends_with_a_server_that_is_killed(folder: Path, ledger: Ledger) -> None:
    """Only the server has the other end of its standard input."""
    ledger.hold.clear()
    with subprocess.Popen(
        [sys.executable, "-m", "swell.server.review_worker", "--socket", str(ledger.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        child.stdin.write(msgspec.json.encode(request(folder)) + b"\n")
        child.stdin.flush()
        assert ledger.reached.wait(60)
        child.stdin.close()
        assert child.wait(30) == 1
