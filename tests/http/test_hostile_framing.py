"""What two parsers could read differently is refused and the connection closed; nothing of it goes upstream."""

from collections.abc import Callable

import pytest
from raw_http import chat_body, chunked, exchange, request

from swell_process import SwellProcess

BODY = chat_body()
HIDDEN = b"POST /v1/chat/completions HTTP/1.1\r\nhost: swell\r\ncontent-length: 0\r\n\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"

# name, header lines in place of the correct content-length, what follows the head
FRAMING: list[tuple[str, bytes, bytes]] = [
    ("two lengths that differ", LENGTH + b"content-length: 3\r\n", BODY),
    ("two lengths that agree", LENGTH + LENGTH, BODY),
    ("a list of lengths", b"content-length: %d, %d\r\n" % (len(BODY), len(BODY)), BODY),
    ("a negative length", b"content-length: -1\r\n", BODY),
    ("a length with a plus", b"content-length: +%d\r\n" % len(BODY), BODY),
    ("a hexadecimal length", b"content-length: 0x%x\r\n" % len(BODY), BODY),
    ("a length with a fraction", b"content-length: %d.0\r\n" % len(BODY), BODY),
    ("a length with an inner space", b"content-length: 1 0\r\n", BODY),
    ("an empty length", b"content-length:\r\n", BODY),
    ("a length beyond 64 bits", b"content-length: 18446744073709551617\r\n", BODY),
    ("a length in other digits", "content-length: ٤٢\r\n".encode(), BODY),
    ("length and chunked", LENGTH + CHUNKED, chunked(BODY)),
    ("chunked and length", CHUNKED + LENGTH, chunked(BODY)),
    ("length zero and chunked", b"content-length: 0\r\n" + CHUNKED, chunked(BODY) + HIDDEN),
    ("chunked then identity", b"transfer-encoding: chunked, identity\r\n", chunked(BODY)),
    ("identity then chunked", b"transfer-encoding: identity, chunked\r\n", chunked(BODY)),
    ("gzip then chunked", b"transfer-encoding: gzip, chunked\r\n", chunked(BODY)),
    ("chunked twice", b"transfer-encoding: chunked, chunked\r\n", chunked(BODY)),
    ("chunked in two lines", CHUNKED + CHUNKED, chunked(BODY)),
    ("chunked and a second coding line", CHUNKED + b"transfer-encoding: x\r\n", chunked(BODY)),
    ("xchunked", b"transfer-encoding: xchunked\r\n", chunked(BODY)),
    ("chunkedx", b"transfer-encoding: chunkedx\r\n", chunked(BODY)),
    ("chunked in quotes", b'transfer-encoding: "chunked"\r\n', chunked(BODY)),
    ("chunked with a parameter", b"transfer-encoding: chunked;q=1\r\n", chunked(BODY)),
    ("chunked after a vertical tab", b"transfer-encoding: \x0bchunked\r\n", chunked(BODY)),
    ("chunked after a no-break space", b"transfer-encoding: \xa0chunked\r\n", chunked(BODY)),
    ("an empty coding", b"transfer-encoding:\r\n" + LENGTH, BODY),
    ("only identity", b"transfer-encoding: identity\r\n" + LENGTH, BODY),
    ("a space before the colon", b"transfer-encoding : chunked\r\n" + LENGTH, BODY),
    ("a tab before the colon", b"transfer-encoding\t: chunked\r\n" + LENGTH, BODY),
    ("a space before the name", b" transfer-encoding: chunked\r\n" + LENGTH, BODY),
    ("obsolete folding", b"x-a: 1\r\n  2\r\n" + LENGTH, BODY),
    ("obsolete folding of the coding", b"transfer-encoding:\r\n chunked\r\n", chunked(BODY)),
    ("a bare carriage return in a value", b"x-a: 1\r2\r\n" + LENGTH, BODY),
    ("a bare carriage return that hides a header", b"x-a: 1\rtransfer-encoding: chunked\r\n" + LENGTH, BODY),
    ("a bare line feed", b"x-a: 1\n" + LENGTH, BODY),
    ("a bare line feed that hides a header", b"x-a: 1\ntransfer-encoding: chunked\r\n" + LENGTH, BODY),
    ("a zero byte in a value", b"x-a: 1\x002\r\n" + LENGTH, BODY),
    ("a zero byte in a name", b"x\x00a: 1\r\n" + LENGTH, BODY),
    ("a control character in a value", b"x-a: \x01\r\n" + LENGTH, BODY),
    ("a header without a colon", b"x-a\r\n" + LENGTH, BODY),
    ("a header without a name", b": 1\r\n" + LENGTH, BODY),
    ("a chunk size beyond 64 bits", CHUNKED, b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size of many zeros and too much", CHUNKED, b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("a negative chunk size", CHUNKED, b"-5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size with a plus", CHUNKED, b"+5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size with a prefix", CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size after a space", CHUNKED, b" 5\r\nhello\r\n0\r\n\r\n"),
    ("an empty chunk size", CHUNKED, b"\r\nhello\r\n0\r\n\r\n"),
    ("a chunk ended by a line feed", CHUNKED, b"5\nhello\n0\n\n"),
    ("a chunk longer than it says", CHUNKED, b"3\r\nhello\r\n0\r\n\r\n"),
    ("a chunk without its end", CHUNKED, b"5\r\nhello5\r\nhello\r\n0\r\n\r\n"),
    ("a bare carriage return after a chunk size", CHUNKED, b"5\rhello\r\n0\r\n\r\n"),
    ("a chunk extension with a line feed", CHUNKED, b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("a trailer with a bare line feed", CHUNKED, b"%x\r\n%b\r\n0\r\nx-a: 1\n\r\n" % (len(BODY), BODY)),
    ("an upgrade", LENGTH + b"connection: upgrade\r\nupgrade: h2c\r\n", BODY),
]

# name, request line, host lines
LINES: list[tuple[str, bytes, bytes]] = [
    ("no host", b"POST /v1/chat/completions HTTP/1.1", b""),
    ("two hosts", b"POST /v1/chat/completions HTTP/1.1", b"host: swell\r\nhost: other\r\n"),
    ("a method in small letters", b"post /v1/chat/completions HTTP/1.1", b"host: swell\r\n"),
    ("an unknown method", b"FROBNICATE /v1/chat/completions HTTP/1.1", b"host: swell\r\n"),
    ("CONNECT", b"CONNECT swell:80 HTTP/1.1", b"host: swell\r\n"),
    ("HTTP/2 in the line", b"POST /v1/chat/completions HTTP/2.0", b"host: swell\r\n"),
    ("HTTP/1.2 in the line", b"POST /v1/chat/completions HTTP/1.2", b"host: swell\r\n"),
    ("HTTP/0.9 in the line", b"POST /v1/chat/completions HTTP/0.9", b"host: swell\r\n"),
    ("no version", b"POST /v1/chat/completions", b"host: swell\r\n"),
    ("a space in the path", b"POST /v1/chat /completions HTTP/1.1", b"host: swell\r\n"),
    ("a line feed in the line", b"POST /v1/chat/completions\nHTTP/1.1", b"host: swell\r\n"),
    ("a zero byte in the path", b"POST /v1/chat/\x00completions HTTP/1.1", b"host: swell\r\n"),
    ("a space before the line", b" POST /v1/chat/completions HTTP/1.1", b"host: swell\r\n"),
    ("chunked in HTTP/1.0", b"POST /v1/chat/completions HTTP/1.0", b"host: swell\r\ntransfer-encoding: chunked\r\n"),
]


@pytest.mark.process
@pytest.mark.parametrize(("headers", "rest"), [case[1:] for case in FRAMING], ids=[case[0] for case in FRAMING])
def test_ambiguous_framing_is_refused(
    gateway: SwellProcess,
    forwarded: Callable[[], int],
    assert_refused: Callable[..., None],
    headers: bytes,
    rest: bytes,
) -> None:
    result = exchange(gateway.port, request(gateway.key, extra=headers, length=False) + rest)
    assert_refused(result)
    assert len(result.answers) == 1
    assert forwarded() == 0


@pytest.mark.process
@pytest.mark.parametrize(("line", "host"), [case[1:] for case in LINES], ids=[case[0] for case in LINES])
def test_a_request_line_or_host_out_of_order_is_refused(
    gateway: SwellProcess, forwarded: Callable[[], int], assert_refused: Callable[..., None], line: bytes, host: bytes
) -> None:
    assert_refused(exchange(gateway.port, request(gateway.key, BODY, line=line, host=host)))
    assert forwarded() == 0


@pytest.mark.process
def test_the_preface_of_http_2_is_refused(gateway: SwellProcess, assert_refused: Callable[..., None]) -> None:
    assert_refused(exchange(gateway.port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00" + bytes(4)))


@pytest.mark.process
def test_bytes_of_tls_get_no_answer_that_hangs(gateway: SwellProcess) -> None:
    result = exchange(gateway.port, bytes.fromhex("16030100a5010000a10303") + bytes(160))
    assert result.closed


@pytest.mark.process
@pytest.mark.parametrize(
    "headers",
    [b"transfer-encoding: chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"TRANSFER-ENCODING:  Chunked \r\n"],
    ids=["plain", "after a tab", "in capitals"],
)
def test_chunked_bodies_in_legal_dress_are_served(
    gateway: SwellProcess, forwarded: Callable[[], int], headers: bytes
) -> None:
    sent = request(gateway.key, extra=headers, length=False) + chunked(BODY[:10], BODY[10:])
    result = exchange(gateway.port, sent)
    assert [answer.status for answer in result.answers] == [200]
    assert forwarded() == 1


@pytest.mark.process
def test_a_chunked_body_in_single_bytes_is_served(gateway: SwellProcess, forwarded: Callable[[], int]) -> None:
    sent = request(gateway.key, extra=CHUNKED, length=False) + chunked(BODY)
    result = exchange(gateway.port, *(sent[index : index + 1] for index in range(len(sent))))
    assert [answer.status for answer in result.answers] == [200]
    assert forwarded() == 1
