"""A review in a process of its own, as the server has it made."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from swell.errors import SwellError, UserError
from swell.server.review_report import ReviewAnswer, ReviewReport, ReviewRequest

MAX_REVIEW_SECONDS = 6 * 3600.0
MAX_ANSWER_BYTES = 1024 * 1024
LOG = "review"  # `swell logs review`: what the last one complained of

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_INHERITED = ("PATH", "HOME", "LANG", "TZ", "PYTHONPATH", "PYTHONTZPATH")
_log = logging.getLogger(__name__)


class ReviewProcess:
    """Starts one for each review; whoever waits for it and no longer wants it ends it."""

    def __init__(
        self,
        socket: Path,
        logs: Path,
        environ: Mapping[str, str] = os.environ,
        *,
        limit_seconds: float = MAX_REVIEW_SECONDS,
    ) -> None:
        """`socket` is where the ledger is read, `logs` the folder of logs. It inherits none of the server's secrets."""
        self._socket = socket
        self._log_path = logs / f"{LOG}.log"
        self._environ = {name: environ[name] for name in _INHERITED if name in environ} | _ONE_THREAD
        self._limit_seconds = limit_seconds

    async def report(self, request: ReviewRequest) -> ReviewReport:
        """The review. UserError where there can be none, SwellError where another try may do better."""
        try:
            async with asyncio.timeout(self._limit_seconds):
                content, code = await self._run(msgspec.json.encode(request))
        except TimeoutError as error:
            raise UserError(
                f"it was not done within {self._limit_seconds / 3600:g} hours; look back over fewer days "
                "(alerts.review.days), or run: swell review"
            ) from error
        except OSError as error:
            raise SwellError(f"its process could not be started ({error.strerror})") from error
        try:
            answer = msgspec.json.decode(content, type=ReviewAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SwellError(f"its process ended with {code} and without an answer; see: swell logs {LOG}") from error
        if answer.report is not None:
            return answer.report
        if answer.refused:
            raise UserError(answer.refused)
        raise SwellError(answer.failed)

    async def _run(self, request: bytes) -> tuple[bytes, int]:
        """What it answered, and its exit code."""
        complaints = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "swell.server.review_worker", "--socket", str(self._socket),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=complaints,
                env=self._environ, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(complaints)
        _log.info("a review began", extra={"pid": process.pid})
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(request + b"\n")
            content = await _all_of(process.stdout)
            return content, await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            process.stdin.close()
            _log.info("a review ended", extra={"pid": process.pid, "exit_code": process.returncode})


async def _all_of(stream: asyncio.StreamReader) -> bytes:
    content = b""
    while piece := await stream.read(65_536):
        content += piece
        if len(content) > MAX_ANSWER_BYTES:
            raise SwellError(f"its process answered with more than {MAX_ANSWER_BYTES} bytes")
    return content
