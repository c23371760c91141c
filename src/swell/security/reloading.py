"""TLS from files that somebody renews: what is shown follows them, while the process runs.

Whoever renews a certificate puts other files in its place, and no connection that is open minds. So the files are
looked at now and then, and what has changed is read for the connections that come next. Files that cannot be used, such
as a new certificate whose key is not there yet, change nothing: what was read last is shown on, and looked at again.
Nothing here needs more than Python itself: gateway workers import it.
"""

import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from swell.errors import StateError

LOOK_SECONDS = 30.0  # between two looks at the files
SAY_AGAIN_SECONDS = 3600.0  # until the same trouble is told once more
LATE_PART = 0.1  # of a certificate's life: so little is left only where nobody renews it in time

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime
_VERSION = 0xA0

_log = logging.getLogger(__name__)


class ReloadingContext:
    """`current` is for the next connection. `look` is to be called every LOOK_SECONDS."""

    def __init__(
        self,
        certificate: Path,
        others: Sequence[Path],
        make: Callable[[], ssl.SSLContext],
        ensure: Callable[[], object] = lambda: None,
    ) -> None:
        """`make` reads all files, `ensure` makes those anew that are our own to make. Raises what both raise."""
        self._certificate = certificate
        self._files = (certificate, *others)
        self._make = make
        self._ensure = ensure
        self._read = self._state()  # taken before they are read: what changes meanwhile is seen at the next look
        self.current = make()
        self._begins, self._ends = validity(certificate)
        self._told, self._told_unix = "", 0.0

    def look(self, now_unix: float) -> str:
        """Read the files if they have changed. What a person should know now; empty where all is well or was told."""
        problem = self._reload(now_unix)
        if not problem and self._ends - now_unix < LATE_PART * (self._ends - self._begins):
            problem = f"the certificate {self._certificate} has not been renewed; {_until(self._ends, now_unix)}"
        if not problem:
            self._told = ""
            return ""
        if problem == self._told and now_unix - self._told_unix < SAY_AGAIN_SECONDS:
            return ""
        self._told, self._told_unix = problem, now_unix
        _log.warning("a certificate is not renewed as it should be", extra={"reason": problem})
        return problem

    def _reload(self, now_unix: float) -> str:
        try:
            self._ensure()
            state = self._state()
            if state == self._read:
                return ""
            made = self._make()
            begins, ends = validity(self._certificate)
        except (OSError, ValueError, StateError) as error:  # ssl.SSLError is an OSError
            return (
                f"{_reason(error)}; until it is put right the one of before is shown on: {_until(self._ends, now_unix)}"
            )
        if not begins <= now_unix < ends:
            why = "has ended already" if ends <= now_unix else f"is not good before {_moment(begins)}"
            return (
                f"the new certificate {self._certificate} {why}; the one of before is shown on until "
                f"another one is there: {_until(self._ends, now_unix)}"
            )
        self.current, self._read, self._begins, self._ends = made, state, begins, ends
        _log.info("a renewed certificate is shown from now on", extra={"path": str(self._certificate)})
        return ""

    def _state(self) -> tuple[tuple[int, ...], ...]:
        return tuple(_file_state(path) for path in self._files)


def validity(certificate: Path) -> tuple[float, float]:
    """From when to when the first certificate of a PEM file is good, in Unix time.

    Raises OSError for a file that cannot be read, ValueError for one without a certificate.
    """
    text = certificate.read_text("ascii", errors="replace")
    begin, end = text.find(_BEGIN), text.find(_END)
    if begin < 0 or end < begin:
        raise ValueError(f"the certificate {certificate} cannot be read: give a PEM chain, leaf first")
    try:
        return _validity(ssl.PEM_cert_to_DER_cert(text[begin : end + len(_END)]))
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"the certificate {certificate} cannot be read: give a PEM chain, leaf first") from error


def _validity(der: bytes) -> tuple[float, float]:
    """The two times of a certificate, which follow version, serial number, algorithm and issuer (RFC 5280)."""
    at, _ = _content(der, _content(der, 0)[0])
    for _ in range(4 if der[at] == _VERSION else 3):
        at = _content(der, at)[1]
    at, _ = _content(der, at)
    begin, middle = _content(der, at)
    last, end = _content(der, middle)
    return _time(der[at], der[begin:middle]), _time(der[middle], der[last:end])


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    length, begin = der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    return begin, begin + length


def _time(tag: int, content: bytes) -> float:
    return datetime.strptime(content.decode("ascii"), _TIMES[tag]).replace(tzinfo=UTC).timestamp()


def _file_state(path: Path) -> tuple[int, ...]:
    """Other than before where the file was written to or replaced, or a link leads elsewhere. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _until(ends_unix: float, now_unix: float) -> str:
    ended = "it has ended on" if ends_unix <= now_unix else "it ends on"
    return f"{ended} {_moment(ends_unix)}"


def _moment(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M} UTC"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.filename:
        return f"{error.filename} cannot be read: {error.strerror}"
    return str(error)
