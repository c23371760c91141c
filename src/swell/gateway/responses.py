"""Response heads and error bodies. Errors have OpenAI's shape; on /v1/messages, Anthropic's."""

import msgspec

REASONS = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 411: b"Length Required", 413: b"Content Too Large",
    414: b"URI Too Long", 415: b"Unsupported Media Type", 422: b"Unprocessable Content", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 499: b"Client Closed Request", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}  # fmt: skip

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error"}  # fmt: skip

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_encode = msgspec.json.Encoder().encode


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """An answer other than the engine's; closes nothing by itself."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_seconds = retry_after_seconds


def error_body(refusal: Refusal, *, anthropic: bool = False) -> bytes:
    """The JSON of an error."""
    kind = _TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "api_error")
    if anthropic:
        return _encode({"type": "error", "error": {"type": kind, "message": refusal.message}})
    return _encode({"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}})


def error_event(refusal: Refusal, *, anthropic: bool = False) -> bytes:
    """The error as one server-sent event, for a stream that has begun."""
    name = b"event: error\n" if anthropic else b""
    return name + b"data: " + error_body(refusal, anthropic=anthropic) + b"\n\n"


def head(status: int, headers: bytes, *, content_type: bytes, length: int | None, close: bool) -> bytes:
    """A response head. `length` None means chunked; `headers` are complete lines ending in CRLF."""
    if status == 200 and length is not None and not close:
        return _PLAIN % (content_type, length, headers)
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b\r\n%b%b\r\n" % (
        status,
        REASONS.get(status, b"Unknown"),
        content_type,
        framing,
        b"connection: close\r\n" if close else b"",
        headers,
    )


def retry_after(refusal: Refusal) -> bytes:
    """The retry-after line in whole seconds, at least one; empty where retrying makes no sense."""
    if refusal.retry_after_seconds is None:
        return b""
    return b"retry-after: %d\r\n" % max(1, int(refusal.retry_after_seconds + 0.999))


def chunk(payload: bytes) -> bytes:
    """One chunk of chunked coding."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
