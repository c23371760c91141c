"""TLS on the listener, as a thin layer between the event loop's transport and a client connection.

OpenSSL works on two memory buffers; a read costs one call in and one out, a write likewise. The event
loop's own TLS does the same with more machinery around it, which here would cost more than the cipher.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from swell.security.unencrypted import no_passphrase

READ_BYTES = 16 * 1024  # the most that one record holds; larger buffers are mapped and faulted in anew for every read
MAX_HANDSHAKE_BYTES = 64 * 1024  # what a client may send before its handshake is complete


def server_context(certificate_file: str, private_key_file: str) -> ssl.SSLContext:
    """TLS 1.2 and up, HTTP/1.1 only. Raises OSError or ssl.SSLError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(certificate_file, private_key_file, password=no_passphrase)
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsConnection(asyncio.Protocol, asyncio.Transport):
    """To the event loop a protocol, to the client connection its transport."""

    __slots__ = ("_handshake_bytes", "_incoming", "_inner", "_is_open", "_outgoing", "_tls", "_transport")

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._inner = inner
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._is_open = False
        self._handshake_bytes = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(self)  # its deadline for the first headers covers the handshake

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        incoming, tls = self._incoming, self._tls
        incoming.write(data)
        try:
            if not self._is_open and not self._shake_hands(len(data)):
                return
            while incoming.pending or tls.pending():
                plain = tls.read(READ_BYTES)
                if not plain:
                    self._transport.close()  # close_notify: the client is done
                    return
                self._inner.data_received(plain)
                if self._transport.is_closing():
                    return
        except ssl.SSLWantReadError:
            self._flush()  # a record is not complete yet
        except ssl.SSLError:
            self._flush()  # an alert, so that the client learns why
            self._transport.close()

    def _shake_hands(self, size: int) -> bool:
        self._handshake_bytes += size
        if self._handshake_bytes > MAX_HANDSHAKE_BYTES:
            self._transport.abort()
            return False
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        self._is_open = True
        self._flush()
        return True

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    # asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send. Nothing can be sent before the handshake is complete."""
        if self._is_open and data:
            self._tls.write(data)
            self._transport.write(self._outgoing.read())

    def close(self) -> None:
        """Say goodbye in TLS, so that the client can tell the end from a cut, and close."""
        if self._is_open and not self._transport.is_closing():
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # the client's own goodbye is not waited for
                self._is_open = False
            self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._transport.get_extra_info(name, default)


def listener_protocol(
    make_client: Callable[[], asyncio.Protocol], context: Callable[[], ssl.SSLContext] | None
) -> Callable[[], asyncio.Protocol]:
    """What the event loop calls for every accepted connection; `context` says what is shown to this one."""
    if context is None:
        return make_client
    return lambda: TlsConnection(context(), make_client())
