"""The weekly review of a running server: made once a week in a process of its own, and told as an alert.

A week lasts from one of its moments to the next (`metering.weekly`), and its alert is stored under its name. So it is
told once, whatever restarts and however the clock is set, and a server that was away at the hour makes up for it when
it is back. What a file asks for begins with its next hour: since when it asks is kept in the state directory.

A review that cannot be made is told in its place, in a line; one whose process fails is tried again MAX_TRIES times.
The loop waits while a review is made, so there is never more than one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from swell.clock import Clock
from swell.errors import SwellError, UserError
from swell.metering.periods import zone_of
from swell.metering.weekly import Week, week_at
from swell.security.private_files import replace_private
from swell.server.alert_book import AlertBook, new_alert_id
from swell.server.loops import Loop
from swell.server.parts import Parts
from swell.server.review_process import ReviewProcess
from swell.server.review_report import ReviewReport, ReviewRequest, command_of
from swell.server.review_wording import SENT, no_review_alert, review_alert
from swell.spec import Spec
from swell.spec.reviews import DEFAULT_TOP, ReviewSpec
from swell.state.alerts import AlertRecord

LOOK_SECONDS = 10.0
FIRST_LOOK_SECONDS = 5.0  # after a start, which has other things to do
RETRY_SECONDS = 900.0  # after a process that failed
MAX_TRIES = 3  # of one week
DAY_SECONDS = 86_400.0
FILE = "review.json"

_PREFIX = "review:"
_log = logging.getLogger(__name__)

MakeReport = Callable[[ReviewRequest], Awaitable[ReviewReport]]
"""UserError where there can be no review, SwellError where another try may do better."""


class _Asked(msgspec.Struct, frozen=True):
    """The file: since when this schedule is asked for, Unix seconds."""

    schedule: str
    since_unix: float


def review_desk(parts: Parts, book: AlertBook) -> "ReviewDesk":
    """The desk of a running server, with its file in the state directory."""
    state = parts.state
    process = ReviewProcess(state.admin_socket, state.logs)
    options = [("--file", None if parts.file is None else parts.file.absolute()), ("--state", state.root)]
    return ReviewDesk(parts.spec, book, parts.clock, state.root / FILE, process.report, options=options)


class ReviewDesk:
    """Made once per server. `make` makes a review; `options` are those of `swell review` for this server."""

    def __init__(
        self,
        spec: Spec,
        book: AlertBook,
        clock: Clock,
        file: Path,
        make: MakeReport,
        *,
        options: Sequence[tuple[str, object]],
    ) -> None:
        self._review = spec.alerts.review
        self._models = spec.models
        self._zone = zone_of(spec.review_zone)
        self._book = book
        self._clock = clock
        self._file = file
        self._make = make
        self._options = options
        self._since_unix = clock.unix()
        self._told = ""  # the last week that the store is known to have
        self._unstored: AlertRecord | None = None  # made, and not taken by the store yet
        self._failed_week, self._failures = "", 0
        self._look_at = clock.monotonic() + FIRST_LOOK_SECONDS
        loop = Loop("weekly review", self.step, LOOK_SECONDS, clock)
        self.loops = () if self._review is None else (loop,)

    async def begin(self) -> None:
        """Take up since when the file asks for it."""
        if self._review is None:
            await asyncio.to_thread(self._file.unlink, missing_ok=True)
            return
        asked = await asyncio.to_thread(self._read)
        if asked is not None and asked.schedule == self._schedule:
            self._since_unix = asked.since_unix
        else:
            await self._ask_since(self._clock.unix())

    async def step(self, now: float) -> None:
        """One turn: where this week's review is due and was not told, make it and tell it."""
        if self._review is None or now < self._look_at:
            return
        if self._unstored is None:
            at_unix = self._clock.unix()
            if at_unix < self._since_unix:  # the clock was ahead when that was noted
                await self._ask_since(at_unix)
            week = week_at(self._zone, self._review.day.number, self._review.hour, at_unix)
            if week.label == self._told or week.due_unix < self._since_unix:
                return
            if await self._book.has_fired(_PREFIX + week.label):
                self._told = week.label
                return
            self._unstored = await self._made(week, self._review)
        if self._unstored is not None:
            await self._book.add([self._unstored])
            self._told, self._unstored = self._unstored.threshold, None

    async def send(self, report: ReviewReport) -> list[str]:
        """Tell of a review that somebody made, now; the sinks that it goes to. It is no week's.

        UserError where there is no sink at all.
        """
        self._book.require_sinks()
        top = DEFAULT_TOP if self._review is None else self._review.top
        alert = review_alert(report, SENT, top, alert_id=new_alert_id(), at_unix=self._clock.unix())
        await self._book.add([self._book.record(alert, _PREFIX + alert.alert_id, SENT)])
        return self.sinks()

    def sinks(self) -> list[str]:
        """Those that reviews go to. UserError where there is no sink at all."""
        self._book.require_sinks()
        return self._book.takers("review", "info")

    async def _made(self, week: Week, review: ReviewSpec) -> AlertRecord | None:
        """The alert of the week; None where it is to be tried again, later."""
        alert_id = new_alert_id()
        try:
            report = await self._make(self._request(review))
        except UserError as error:
            alert = no_review_alert(error.message, week.label, alert_id=alert_id, at_unix=self._clock.unix())
        except SwellError as error:
            if self._may_try_again(week.label):
                _log.warning("a review failed and will be made again", extra={"reason": str(error)})
                self._look_at = self._clock.monotonic() + RETRY_SECONDS
                return None
            reason = f"{error} (tried {MAX_TRIES} times)"
            alert = no_review_alert(reason, week.label, alert_id=alert_id, at_unix=self._clock.unix())
        else:
            alert = review_alert(report, week.label, review.top, alert_id=alert_id, at_unix=self._clock.unix())
        return self._book.record(alert, _PREFIX + week.label, week.label)

    def _request(self, review: ReviewSpec) -> ReviewRequest:
        options = [*self._options]
        if review.days != ReviewSpec().days:
            options.append(("--days", review.days))
        options += [("--profiles", review.profiles), ("--prices", review.prices)]
        return ReviewRequest(
            models=[model.model_dump(mode="json") for model in self._models],
            since_unix_ms=int((self._clock.unix() - review.days * DAY_SECONDS) * 1000),
            days=review.days,
            profiles=review.profiles,
            prices=review.prices,
            command=command_of(options),
        )

    def _may_try_again(self, week: str) -> bool:
        if week != self._failed_week:
            self._failed_week, self._failures = week, 0
        self._failures += 1
        return self._failures < MAX_TRIES

    @property
    def _schedule(self) -> str:
        return "" if self._review is None else f"{self._review.day} {self._review.hour} {self._zone.key}"

    def _read(self) -> _Asked | None:
        """What the file says; one that cannot be read is as good as none."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Asked)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("since when a weekly review is asked for could not be read", extra={"reason": str(error)})
            return None

    async def _ask_since(self, at_unix: float) -> None:
        self._since_unix = at_unix
        content = msgspec.json.encode(_Asked(self._schedule, at_unix))
        try:
            await asyncio.to_thread(replace_private, self._file, content)
        except OSError as error:
            _log.warning("since when a weekly review is asked for could not be kept", extra={"reason": str(error)})
