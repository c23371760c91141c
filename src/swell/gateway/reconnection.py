"""How long to wait before a server on another machine is asked again.

One that is away may be back, or another may lead, at any moment: it is asked often. One that takes a connection and
closes it has said no, as to a certificate that has ended, and will say so for a while: each such answer doubles the
wait, so that a gateway that may not come in does not use up what its address may open.
"""

import ssl

LONGEST_SECONDS = 10.0


class Reconnection:
    """Of one connection that is made again for ever."""

    def __init__(self, first_seconds: float) -> None:
        self._first = self._next = first_seconds
        self._was_closed = False

    def taken(self) -> None:
        """The server took a connection, and has said nothing yet."""
        self._was_closed = True

    def heard(self) -> None:
        """It has said something."""
        self._next, self._was_closed = self._first, False

    def failed(self, error: OSError) -> None:
        """No connection was made."""
        self._was_closed |= isinstance(error, ConnectionResetError | ssl.SSLEOFError)  # the handshake was cut short

    def wait_seconds(self) -> float:
        """Before the next try, now that this one is over."""
        if not self._was_closed:
            return self._first
        self._was_closed = False
        wait, self._next = self._next, min(2 * self._next, LONGEST_SECONDS)
        return wait
