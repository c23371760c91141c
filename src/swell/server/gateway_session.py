"""A gateway's word with its server: which workers it has, once a second; and what they shall be started with."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import msgspec

from swell.errors import StateError
from swell.gateway.reconnection import Reconnection
from swell.gateway.server_addresses import server_addresses
from swell.security.control_tls import GATEWAY, SERVER_NAME, control_client_context
from swell.server.frames import read_frame
from swell.state.gateway_messages import (
    GatewayHello,
    GatewayReport,
    GatewaySettings,
    ReportHeard,
    ToGateway,
    TurnedAway,
    UsageSent,
    UsageWanted,
    decode_to_gateway,
    encode_gateway_message,
)
from swell.state.worker import ControlServer

CONNECT_SECONDS = 5.0  # to one address, with TLS
ANSWER_SECONDS = 10.0
REPORT_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
MAX_PROBLEMS = 16  # that are remembered as told

_log = logging.getLogger(__name__)


class GatewaySession:
    """Speaks with whichever server answers, for ever."""

    def __init__(
        self,
        control: ControlServer,
        hello: GatewayHello,
        *,
        living: Callable[[], tuple[str, ...]],
        told: Callable[[GatewaySettings], None],
        wanted: Callable[[int], None],
    ) -> None:
        """`living` names the workers that run, `told` is called with what a server sends at its beginning.

        `wanted` is called where the ledger is asked for up to now; `usage_sent` answers.
        """
        self._control = control
        self._hello = hello
        self._living = living
        self._told = told
        self._wanted = wanted
        self._writer: asyncio.StreamWriter | None = None
        self._problems: set[str] = set()  # that were told since it last answered
        self._again = Reconnection(RECONNECT_SECONDS)
        self._is_serving = False  # it has said how
        self._is_lost = False  # it has just gone, and none was asked since
        self.news = asyncio.Event()  # other workers run: say so at once

    async def run(self) -> None:
        """Ends only when cancelled."""
        while True:
            try:
                await self._speak()
            except (OSError, EOFError, ValueError, msgspec.MsgspecError, StateError) as error:
                self._tell(_reason(error))
            except Exception:  # whatever it was: without this connection nothing is served for long
                self._is_serving = False
                _log.exception("the connection to the server failed and is made again")
            await asyncio.sleep(self._again.wait_seconds())

    def usage_sent(self, token: int) -> None:
        """The ledger has what it was asked for with `token`."""
        if self._writer is not None:
            self._writer.write(encode_gateway_message(UsageSent(token)))

    def _tell(self, problem: str) -> None:
        """Once for each problem; that a server which has gone cannot be connected to says nothing new."""
        if self._is_serving:
            _log.warning(
                "the connection to the server has ended; it is asked again until it answers", extra={"reason": problem}
            )
        elif problem not in self._problems:
            level = logging.INFO if self._is_lost else logging.WARNING
            _log.log(level, "no server can be served for yet; it is asked again", extra={"reason": problem})
        if len(self._problems) >= MAX_PROBLEMS:
            self._problems.clear()
        self._problems.add(problem)
        self._is_lost, self._is_serving = self._is_serving, False

    async def _speak(self) -> None:
        reader, self._writer = await self._connected()
        self._again.taken()
        try:
            await _send(self._writer, self._hello)
            settings = await _received(reader)
            self._again.heard()
            if isinstance(settings, TurnedAway):
                raise StateError(settings.problem)
            if not isinstance(settings, GatewaySettings):
                raise ValueError("the server began with something else than settings")
            self._told(settings)
            self._is_serving = True
            async with asyncio.TaskGroup() as both:
                both.create_task(self._listen(reader))
                both.create_task(self._report(self._writer))
        except ExceptionGroup as errors:  # `except*` would have it in another one, with Python 3.11.3 and before
            raise errors.exceptions[0] from None
        finally:
            self._writer.close()
            self._writer = None

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self.news.clear()
            await _send(writer, GatewayReport(self._living()))
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):  # `wait_for` may forget a cancellation
                    await self.news.wait()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            message = await _received(reader)  # in good time: every report is answered
            if isinstance(message, UsageWanted):
                self._wanted(message.token)
            elif not isinstance(message, ReportHeard):
                raise ValueError("the server said something else than a gateway is told")
            if self._problems:
                _log.info("the server answers again")
                self._problems.clear()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        control, reason = self._control, OSError("no address was given")
        context = control_client_context(control, GATEWAY)
        async for host, port in server_addresses(control):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(host, port, ssl=context, server_hostname=SERVER_NAME)
            except OSError as error:
                self._again.failed(error)
                reason = OSError(f"{host}:{port}: {error.strerror or error or 'it does not answer'}")
        raise reason


def _reason(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "the server closed it"
    if isinstance(error, TimeoutError) and not error.strerror:
        return "the server has said nothing for too long"
    return str(error) or type(error).__name__


async def _send(writer: asyncio.StreamWriter, message: GatewayHello | GatewayReport) -> None:
    writer.write(encode_gateway_message(message))
    await writer.drain()


async def _received(reader: asyncio.StreamReader) -> ToGateway:
    message: ToGateway = decode_to_gateway(await read_frame(reader, ANSWER_SECONDS))
    return message
