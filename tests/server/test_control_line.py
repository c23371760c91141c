"""What is on the line of one worker, at any speed: nothing is lost, little waits, and only who does not move is cut."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from swell.server.control_line import MAX_UNREAD_BYTES, MOVE_BYTES, PIECE_BYTES, WRITE_BUFFER_BYTES, ControlLine
from swell.server.publish import Picture, Publication
from swell.state.messages import FrameBuffer, Heard, LeaseGrant, decode_from_server
from swell.state.snapshot import Delta, KeyDigest, KeyEntry, Snapshot

MEBIBYTE = 1024 * 1024
ALL = 1024 * MEBIBYTE
EMPTY = Picture(1, (), (), ())


class Wire:
    """A transport whose other end takes what it is told to."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.taken = FrameBuffer()
        self.messages: list[Any] = []
        self.is_cut = False
        self.line: ControlLine | None = None
        self.link: socket.socket | None = None
        self._high = 0
        self._is_paused = False

    def set_write_buffer_limits(self, high: int) -> None:
        self._high = high

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self.link

    def is_closing(self) -> bool:
        return self.is_cut

    def abort(self) -> None:
        self.is_cut = True

    def write(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > self._high and not self._is_paused and self.line is not None:
            self._is_paused = True
            self.line.is_full()

    def take(self, count: int) -> None:
        while count > 0 and self.buffer:
            piece = bytes(self.buffer[:count])
            count -= len(piece)
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        del self.buffer[: len(piece)]
        self.messages += [decode_from_server(frame) for frame in self.taken.feed(piece)]
        if self._is_paused and len(self.buffer) <= self._high // 4 and self.line is not None:
            self._is_paused = False
            self.line.has_room()


class Handle:
    """A timer that is rung by hand."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self.ring, self.is_cancelled = ring, False

    def cancel(self) -> None:
        self.is_cancelled = True


class World:
    """A line with a publication behind it."""

    def __init__(self) -> None:
        self.wire, self.publication = Wire(), Publication(1, EMPTY)
        self.timers: list[Handle] = []
        self.line = self.wire.line = ControlLine(cast(asyncio.Transport, self.wire), self.catch_up, self.later)
        self.catch_up(0, 0)

    def later(self, delay: float, callback: Callable[[int], object], argument: int) -> asyncio.TimerHandle:
        self.timers.append(Handle(lambda: callback(argument)))
        return cast(asyncio.TimerHandle, self.timers[-1])

    def catch_up(self, epoch: int, sequence: int) -> None:
        for message in self.publication.since(epoch, sequence):
            self.line.send(message)

    def publish(self, name: str, size: int) -> None:
        """A picture with one key, of that many bytes or so."""
        delta = self.publication.update(Picture(1, (), (KeyEntry(name, "t", (KeyDigest(b"d" * size),)),), ()))
        if delta is not None:
            self.line.send(delta)

    def ring(self) -> None:
        """MOVE_SECONDS have passed."""
        waiting, self.timers = self.timers, []
        for timer in waiting:
            if not timer.is_cancelled:
                timer.ring()

    def keys(self) -> dict[str, KeyEntry]:
        """What the worker knows by now; a change that does not follow what it has is a mistake."""
        known: dict[str, KeyEntry] = {}
        sequence = 0
        for message in self.wire.messages:
            if isinstance(message, Snapshot):
                known = {key.key_id: key for key in message.keys}
            elif isinstance(message, Delta):
                assert message.sequence == sequence + 1
                known = {name: key for name, key in known.items() if name not in message.removed_keys}
                known |= {key.key_id: key for key in message.keys}
            else:
                continue
            sequence = message.sequence
        return known


def test_a_large_snapshot_on_a_slow_line_arrives_whatever_else_is_said_meanwhile() -> None:
    world = World()
    world.publish("first", 30 * MEBIBYTE)
    for number in range(1000):
        world.line.send(Heard())
        world.publish(f"later-{number}", 100)
        world.wire.take(MOVE_BYTES)
        world.ring()
    assert not world.wire.is_cut
    assert len(world.wire.buffer) <= 2 * PIECE_BYTES, "what waits is where it can be counted"
    assert world.line._waiting_bytes < 31 * MEBIBYTE, "a thousand changes wait elsewhere"
    world.wire.take(ALL)
    assert world.keys() == {key.key_id: key for key in world.publication.picture.keys}


def test_a_line_that_does_not_move_is_cut_and_one_that_stops_moving_as_well() -> None:
    world = World()
    world.publish("large", 2 * WRITE_BUFFER_BYTES)
    world.wire.take(MOVE_BYTES)
    world.ring()
    assert not world.wire.is_cut
    world.wire.take(MOVE_BYTES - 1)
    world.ring()
    assert world.wire.is_cut
    world.publish("after", 1)
    assert world.wire.messages == [EMPTY.numbered(1, 1)]


def test_what_must_be_said_at_once_is_bounded_as_well() -> None:
    world = World()
    world.publish("large", 30 * MEBIBYTE)
    grant = LeaseGrant("x" * MEBIBYTE, 1, 1, 1)
    for _ in range(MAX_UNREAD_BYTES // MEBIBYTE):
        world.line.send(grant)
    assert world.wire.is_cut
    assert world.line._waiting_bytes == 0, "nothing is kept for one that was cut"


def test_a_line_that_is_closed_hands_over_what_waits_first() -> None:
    world = World()
    world.publish("large", 3 * MEBIBYTE)
    world.line.send(Heard())
    world.line.finish()
    world.wire.take(ALL)
    assert world.wire.messages[-1] == Heard()
    assert world.keys() == {key.key_id: key for key in world.publication.picture.keys}


_STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 12 * MEBIBYTE)),
    st.tuples(st.just("take"), st.integers(1, 12 * MEBIBYTE)),
    st.tuples(st.just("say"), st.just(0)),
    st.tuples(st.just("ring"), st.just(0)),
)


@given(st.lists(_STEPS, max_size=25))
def test_whatever_the_line_does_who_is_not_cut_knows_everything_at_last(steps: list[tuple[str, int]]) -> None:
    world = World()
    for number, (what, size) in enumerate(steps):
        if what == "publish":
            world.publish(str(number), size)
        elif what == "take":
            world.wire.take(size)
        elif what == "say":
            world.line.send(Heard())
        else:
            world.ring()
    while world.wire.buffer and not world.wire.is_cut:
        world.wire.take(4 * MEBIBYTE)
    if not world.wire.is_cut:
        assert world.keys() == {key.key_id: key for key in world.publication.picture.keys}
        assert all(timer.is_cancelled for timer in world.timers)


def test_a_line_between_machines_has_taken_what_the_other_one_acknowledged() -> None:
    """TLS leaves no more in the write buffer than it would of a line that takes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        wire = Wire()
        wire.link = ours
        line = ControlLine(cast(asyncio.Transport, wire), lambda epoch, sequence: None, World().later)
        before = line._taken()
        line.send(Snapshot(1, 1, 1, (), (), ()))
        assert line._taken() == before, "nothing has left this machine"
        with theirs:
            ours.sendall(b"x" * MOVE_BYTES)
            assert len(theirs.recv(MOVE_BYTES, socket.MSG_WAITALL)) == MOVE_BYTES
            assert line._taken() == before + MOVE_BYTES
