"""The process that makes the weekly review, so that nothing of the server waits for it.

    python -m swell.server.review_worker --socket STATE/admin.sock

One line of standard input says what to review; the answer is one JSON document on standard output. It runs behind
everything else on the machine, one replay at a time, and is the first to go where memory ends. Standard input stays
open as long as the server lives and wants the review: its end is this process's end.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from swell.errors import SwellError, UserError
from swell.server.review_ledger import PAGE_ROWS, ReviewLedger
from swell.server.review_report import ReviewAnswer, ReviewRequest

NICENESS = 19  # the last to get a core
OOM_SCORE = 1000  # the first to be killed where memory ends
MAX_REQUEST_BYTES = 16 * 1024 * 1024  # as many models as a file may have


def answer_to(request: ReviewRequest, ledger: ReviewLedger) -> ReviewAnswer:
    """The review that was asked for."""
    # Here and not above: what they load takes a second of a core, and by now this process has stepped back.
    from swell.server.review_cache import CacheUse
    from swell.server.review_reporting import report_of
    from swell.server.review_run import FEWEST_REQUESTS, Terms, prefix_caches, review_all, reviewable
    from swell.server.review_usage import traffic_of
    from swell.spec import ModelSpec

    try:
        models, refused = reviewable([ModelSpec.model_validate(model) for model in request.models])
        uses = {each.name: CacheUse() for each in models}
        since, rows = request.since_unix_ms, PAGE_ROWS
        found = {m.name: traffic_of(ledger, m, since, page_rows=rows, seen=uses[m.name].add) for m in models}
        traffic = {name: each for name, each in found.items() if each is not None}

        def few(name: str, count: int) -> str:
            return f"{count} requests in the last {request.days} days, and {FEWEST_REQUESTS} over some time are needed"

        terms = Terms(_path(request.profiles), _path(request.prices))
        reviews, refused_too = review_all(models, traffic, refused, terms, few=few)
        caches = prefix_caches(reviews, traffic, uses, terms)
    except UserError as error:
        return ReviewAnswer(refused=error.message)
    except SwellError as error:
        return ReviewAnswer(failed=str(error))
    report = report_of(reviews, refused_too, days=request.days, command=request.command, caches=caches)
    return ReviewAnswer(report=report)


def main(arguments: Sequence[str]) -> None:
    """Answer one request."""
    parser = argparse.ArgumentParser(prog="python -m swell.server.review_worker")
    parser.add_argument("--socket", type=Path, required=True)
    socket = parser.parse_args(arguments).socket
    _step_back()
    request = msgspec.json.decode(sys.stdin.buffer.readline(MAX_REQUEST_BYTES), type=ReviewRequest)
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    ledger = ReviewLedger(socket)
    try:
        answer = answer_to(request, ledger)
    finally:
        ledger.close()
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with suppress(OSError):  # not every container shows it
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _end_with_the_server() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        """Nothing more is said; what counts is the end."""
    os._exit(1)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


if __name__ == "__main__":
    main(sys.argv[1:])
