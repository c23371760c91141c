"""Where KEDA reaches the server: gRPC on a port of its own, with TLS where the file says so.

Only a server whose file asks for it comes here, so that nobody else needs the packages. What KEDA is answered is
`external_scaler`'s to say.
"""

import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from os import environ
from pathlib import Path
from typing import Any

from swell.errors import StateError, UserError
from swell.security.reloading import validity
from swell.security.unencrypted import no_passphrase
from swell.server.external_scaler import ExternalScaler, NotAnsweredError, check_metric
from swell.spec.server import ExternalScalerSpec

MAX_MESSAGE_BYTES = 64 * 1024
MAX_METADATA_BYTES = 16 * 1024
MAX_CALLS = 2048  # at once, streams among them; a connection that asks for more is told RESOURCE_EXHAUSTED
MAX_CALLS_PER_CONNECTION = 1024
STOP_SECONDS = 1.0  # for calls to end, once they were told to
KEEP_ALIVE_MS = 30_000  # a peer that says nothing is asked whether it lives
KEEP_ALIVE_TIMEOUT_MS = 10_000
INSTALL = "pip install 'swell[keda]'"

_QUIET = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}  # it writes to the terminal, and we only exec
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port that somebody has is refused
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_CALLS_PER_CONNECTION),
    ("grpc.keepalive_time_ms", KEEP_ALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEP_ALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # of clients that ask whether we live
)

_log = logging.getLogger(__name__)


def check_scaler(spec: ExternalScalerSpec | None) -> None:
    """What would keep the door shut, said before anything is started. Raises UserError."""
    if spec is None:
        return
    _grpc()
    if spec.certificate is not None:
        scaler_context(spec)


def scaler_context(spec: ExternalScalerSpec) -> ssl.SSLContext:
    """What KEDA is shown, of files that are given and belong together. Raises StateError where they do not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(spec.certificate or "", spec.private_key, password=no_passphrase)
        if spec.client_ca is not None:
            context.load_verify_locations(spec.client_ca)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(filter(None, (spec.certificate, spec.private_key, spec.client_ca)))
        reason = (error.strerror if not isinstance(error, ssl.SSLError) else None) or str(error)
        raise StateError(
            f"KEDA cannot be shown a certificate ({files}): {reason}; give PEM files that belong together in "
            "server.external_scaler"
        ) from error
    return context


class ExternalScalerDoor:
    """Made once per server. Without `spec` it stays shut."""

    def __init__(self, spec: ExternalScalerSpec | None, scaler: ExternalScaler) -> None:
        self._spec = spec
        self._scaler = scaler
        self._server: Any = None
        self.port = 0  # where it listens, once it does

    async def open(self) -> None:
        """Listen, where that is wanted. Raises StateError where the port cannot be had, UserError without gRPC."""
        spec = self._spec
        if spec is None:
            return
        grpc = _grpc()
        host = f"[{spec.host}]" if ":" in spec.host else spec.host
        with _quietly():
            server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        server.add_generic_rpc_handlers((_handlers(grpc, self._scaler),))
        try:
            if spec.certificate is None:
                self.port = server.add_insecure_port(f"{host}:{spec.port}")
            else:
                self.port = server.add_secure_port(f"{host}:{spec.port}", _credentials(grpc, spec))
        except RuntimeError as error:
            await server.stop(None)
            raise StateError(
                f"KEDA cannot be listened to at {host}:{spec.port}; free the port, or choose another one with "
                "server.external_scaler"
            ) from error
        await server.start()
        self._server = server
        _log.info("KEDA may ask", extra={"port": self.port})

    async def close(self) -> None:
        """Stop listening, and end what is open within STOP_SECONDS."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(STOP_SECONDS)


def _handlers(grpc: Any, scaler: ExternalScaler) -> Any:
    """The four calls of the service. A fifth one, by which targets would change, is not there: KEDA goes without."""
    from swell.server import external_scaler_messages as messages

    async def is_active(request: Any, context: Any) -> Any:
        count = await _answered(grpc, context, scaler.desired(request.scalerMetadata))
        return messages.IsActiveResponse(result=count > 0)

    async def stream_is_active(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(scaler.activity(request.scalerMetadata)) as activity:
                async for active in activity:
                    yield messages.IsActiveResponse(result=active)
        except NotAnsweredError as error:
            await context.abort(grpc.StatusCode[error.refusal], str(error))

    async def get_metric_spec(request: Any, context: Any) -> Any:
        await _answered(grpc, context, scaler.desired(request.scalerMetadata))
        return messages.targets()

    async def get_metrics(request: Any, context: Any) -> Any:
        async def count() -> int:
            check_metric(request.metricName)
            return await scaler.desired(request.scaledObjectRef.scalerMetadata)

        return messages.metrics(await _answered(grpc, context, count()))

    def call(kind: Callable[..., Any], function: Callable[..., Any], request: Any, response: Any) -> Any:
        return kind(function, request_deserializer=request.FromString, response_serializer=response.SerializeToString)

    once, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    ref, active = messages.ScaledObjectRef, messages.IsActiveResponse
    calls = {
        "IsActive": call(once, is_active, ref, active),
        "StreamIsActive": call(stream, stream_is_active, ref, active),
        "GetMetricSpec": call(once, get_metric_spec, ref, messages.GetMetricSpecResponse),
        "GetMetrics": call(once, get_metrics, messages.GetMetricsRequest, messages.GetMetricsResponse),
    }
    return grpc.method_handlers_generic_handler(messages.SERVICE, calls)


async def _answered(grpc: Any, context: Any, asked: Awaitable[int]) -> int:
    try:
        return await asked
    except NotAnsweredError as error:
        await context.abort(grpc.StatusCode[error.refusal], str(error))
        raise


def _credentials(grpc: Any, spec: ExternalScalerSpec) -> Any:
    """What is shown at every handshake: the files as they are then, or as they were when they could be used last."""
    files = tuple(Path(name) for name in (spec.private_key, spec.certificate, spec.client_ca) if name is not None)
    shown: list[tuple[bytes, ...]] = [_read(files)]
    told: set[str] = set()  # problems since

    def configuration() -> Any:
        key, certificate, *authority = shown[0]
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority[0] if authority else None)

    def renewed() -> Any:
        try:
            found = _read(files)
            if found == shown[0]:
                return None
            scaler_context(spec)  # they may be written just now
            _check_times(Path(spec.certificate or ""))
        except (OSError, ValueError, StateError) as error:
            if str(error) not in told:
                told.add(str(error))
                _log.warning("what KEDA is shown cannot be used, and stays as it is", extra={"reason": str(error)})
            return None
        shown[0] = found
        told.clear()
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(), renewed, require_client_authentication=spec.client_ca is not None
    )


def _check_times(certificate: Path) -> None:
    begins, ends = validity(certificate)
    if not begins <= time.time() < ends:
        raise StateError(f"the new certificate {certificate} is not good at this time; give one that is")


def _read(files: tuple[Path, ...]) -> tuple[bytes, ...]:
    return tuple(file.read_bytes() for file in files)


def _grpc() -> Any:
    """Raises UserError where the packages are missing."""
    try:
        with _quietly():
            import grpc
            import grpc.aio

            from swell.server import external_scaler_messages  # noqa: F401  # needs a package as well
    except ImportError as error:
        raise UserError(f"to be asked by KEDA, Swell needs packages more; run: {INSTALL}") from error
    return grpc


@contextmanager
def _quietly() -> Iterator[None]:
    """gRPC reads how it shall behave from the environment when it begins; children are not to inherit that."""
    before = {name: environ.get(name) for name in _QUIET}
    environ.update({name: value for name, value in _QUIET.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
