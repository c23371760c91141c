"""A worker's line over real TLS, with the event loops that there are: changes do not wait behind a large snapshot."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from test_gateway_listener import Bench, until

from swell.security.control_tls import CONTROL
from swell.server.publish import LOG_DELTAS, Picture
from swell.state.messages import Hello, decode_from_server, encode_message
from swell.state.snapshot import Delta, KeyDigest, KeyEntry, Snapshot

MEBIBYTE = 1024 * 1024
LARGE = 24 * MEBIBYTE  # more than a line's buffer and all that a system holds of one
CHANGES = 2 * LOG_DELTAS
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def _keys(number: int) -> tuple[KeyEntry, ...]:
    return KeyEntry("large", "t", (KeyDigest(b"d" * LARGE),)), KeyEntry("small", "t", (KeyDigest(b"%d" % number),))


async def _messages_of_a_slow_line(folder: Path) -> list[Snapshot | Delta]:
    """What a worker is sent that reads nothing while much changes."""
    async with Bench(folder) as bench:
        bench.channel.publish(Picture(1, (), _keys(0), ()))
        line = await bench.line(CONTROL)
        line.pause()
        line.send_raw(encode_message(Hello(0, "w1", 1, 0, 0, ())))
        await until(lambda: "w1" in bench.channel.connected())
        for number in range(1, CHANGES + 1):
            bench.channel.publish(Picture(1, (), _keys(number), ()))
        line.resume()
        got: list[Snapshot | Delta] = []
        while not got or got[-1].sequence < bench.channel.publication.sequence:
            message = decode_from_server(await line.receive_raw())
            assert isinstance(message, Snapshot | Delta)
            got.append(message)
        bench.channel.publish(Picture(1, (), _keys(CHANGES + 1), ()))
        after = decode_from_server(await line.receive_raw())
        assert isinstance(after, Delta)
        return [*got, after]


@pytest.mark.parametrize("loop", LOOPS)
def test_what_changes_behind_a_large_snapshot_is_sent_as_it_is_at_last(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        *got, after = runner.run(_messages_of_a_slow_line(tmp_path))
    assert [type(message) for message in got] == [Snapshot, Snapshot], f"{len(got)} messages"
    assert {key.key_id: key for key in got[-1].keys} == {key.key_id: key for key in _keys(CHANGES)}
    assert after.sequence == got[-1].sequence + 1
