"""The ledger, as a reader of spools on another machine enters into it: each call goes to the server and is answered.

A call that fails has changed nothing, or what it changed is changed again without effect: the reader's calls are made
to be repeated. Blocking, for the reader's own thread.
"""

import socket
import ssl
from collections.abc import Iterable, Sequence

import msgspec

from swell.errors import AtCapacity, SwellError
from swell.security.control_tls import SERVER_NAME, USAGE, control_client_context
from swell.server.frames import receive_frame
from swell.state.gateway_messages import (
    Answer,
    ApplyUsage,
    AskPosition,
    FinaliseSpool,
    ForgetSpools,
    GatewayHello,
    UsageCall,
    decode_to_gateway,
    encode_gateway_message,
)
from swell.state.records import FinalisedSpool, SpoolPosition, UsageChange
from swell.state.worker import ControlServer

CONNECT_SECONDS = 5.0  # to one address
ANSWER_SECONDS = 30.0  # a store that is away is waited for by the server, and less than this
RETRY_AFTER_SECONDS = 0.5
PIECE_BYTES = 64 * 1024  # that must go out within ANSWER_SECONDS: a slow line is waited for while it moves


class RemoteUsage:
    """`SpoolStore` over a connection that is made when it is needed, and anew where it was lost."""

    def __init__(self, control: ControlServer, hello: GatewayHello) -> None:
        self._control = control
        self._hello = hello
        self._connection: ssl.SSLSocket | None = None

    def apply_usage(self, changes: Iterable[UsageChange], position: SpoolPosition) -> None:
        """As the store's."""
        self._call(ApplyUsage(list(changes), position))

    def finalise_spool(self, spool: str, *, damaged: bool) -> FinalisedSpool:
        """As the store's."""
        return self._call(FinaliseSpool(spool, damaged)).finalised or FinalisedSpool(0, 0)

    def spool_position(self, spool: str) -> SpoolPosition | None:
        """As the store's."""
        return self._call(AskPosition(spool)).position

    def forget_spools(self, existing: Sequence[str], gateway: str = "") -> None:
        """As the store's, for this gateway."""
        self._call(ForgetSpools(list(existing)))

    def close(self) -> None:
        """Let go of the connection; the next call makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, call: UsageCall) -> Answer:
        try:
            if self._connection is None:
                self._connection = self._connected()
            _send(self._connection, encode_gateway_message(call))
            answer = decode_to_gateway(receive_frame(self._connection))
            if not isinstance(answer, Answer):
                raise ValueError("it answered something else")
        except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
            self.close()
            raise AtCapacity(
                f"usage waits on this machine: the server does not take it ({error or type(error).__name__})",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error
        if not answer.problem:
            return answer
        self.close()  # another server may be the one to ask
        if answer.retry_after_seconds is not None:
            raise AtCapacity(answer.problem, retry_after_seconds=answer.retry_after_seconds)
        raise SwellError(answer.problem)

    def _connected(self) -> ssl.SSLSocket:
        """A connection to the first address that answers. Raises OSError or StateError."""
        control, reason = self._control, OSError("no address was given")
        context = control_client_context(control, USAGE)
        for host, port in control.addresses:
            try:
                plain = socket.create_connection((host, port), CONNECT_SECONDS)
            except OSError as error:
                reason = error
                continue
            try:
                connection = context.wrap_socket(plain, server_hostname=SERVER_NAME)
                connection.settimeout(ANSWER_SECONDS)
                connection.sendall(encode_gateway_message(self._hello))
            except OSError as error:
                plain.close()
                reason = error
                continue
            return connection
        raise reason


def _send(connection: ssl.SSLSocket, content: bytes) -> None:
    """All of it. A socket's timeout is for the whole of what it is given at once."""
    for begin in range(0, len(content), PIECE_BYTES):
        connection.sendall(content[begin : begin + PIECE_BYTES])
