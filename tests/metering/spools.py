"""A worker's side of the spool for tests: small segments, written as a gateway worker writes them, and what is true."""

import fcntl
import os
import random
from pathlib import Path

from swell.ports.store import MAX_LISTED, UsageStore
from swell.state.records import UsageFilter
from swell.state.usage import LOCK_NAME, Reserved, Sent, Settled, SpoolRecord, encode_frame

Truth = dict[str, tuple[str, int, int]]  # request id: status, prompt tokens, completion tokens


class SpoolWriter:
    """Appends records, holding the folder's lock until `die`."""

    def __init__(self, folder: Path, segment_bytes: int = 2048) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._number = 0
        self._lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._next_segment()

    def append(self, *records: SpoolRecord) -> None:
        for record in records:
            frame = b"".join(encode_frame(record))
            if self._offset + len(frame) > self._segment_bytes:
                self._next_segment()
            with self.path.open("r+b") as file:
                file.seek(self._offset)
                file.write(frame)
            self._offset += len(frame)

    def tear(self, content: bytes, ahead: int = 0) -> None:
        """Write bytes that are no frame where the next frame would begin, or `ahead` of it."""
        with self.path.open("r+b") as file:
            file.seek(self._offset + ahead)
            file.write(content)

    def die(self) -> None:
        os.close(self._lock)

    @property
    def path(self) -> Path:
        return self.folder / f"{self._number:08d}.spool"

    def _next_segment(self) -> None:
        self._number += 1
        self._offset = 0
        self.path.write_bytes(bytes(self._segment_bytes))


def reserved(request_id: str, *, sent: bool = True, prompt: int = 100, completion: int = 512) -> Reserved:
    return Reserved(request_id, 1000, "key1", "search", "chat", "/v1/chat/completions", prompt, completion, sent)


def settled(request_id: str, *, status: str = "settled", prompt: int = 7, completion: int = 9) -> Settled:
    return Settled(request_id, 2000, status, prompt, completion, "chat-0", 200, 500, 50)


Stage = tuple[SpoolRecord, tuple[str, int, int]]  # a record, and what is true of its request once it is written


class Traffic:
    """Requests in all stages at once, and what the ledger must say of them if their worker dies now."""

    def __init__(self, choices: random.Random, prefix: str = "r") -> None:
        self.truth: Truth = {}
        self._choices = choices
        self._prefix = prefix
        self._begun = 0
        self._under_way: list[list[Stage]] = []

    def next_record(self) -> SpoolRecord:
        """The next record, in an order in which a worker could write them."""
        if not self._under_way or self._choices.random() < 0.4:
            self._begun += 1
            self._under_way.append(self._life_of(f"{self._prefix}{self._begun:06d}"))
        request = self._choices.choice(self._under_way)
        record, truth = request.pop(0)
        if not request:
            self._under_way.remove(request)
        self.truth[record.request_id] = truth
        return record

    def _life_of(self, request_id: str) -> list[Stage]:
        choices = self._choices
        bound, used = ((choices.randint(0, 999), choices.randint(0, 999)) for _ in range(2))
        at_bound, void = ("reserved", *bound), ("void", 0, 0)
        queued: Stage = (reserved(request_id, sent=False, prompt=bound[0], completion=bound[1]), void)
        sent_at_once: Stage = (reserved(request_id, sent=True, prompt=bound[0], completion=bound[1]), at_bound)
        status = choices.choice(("settled", "estimated"))
        outcome: Stage = (settled(request_id, status=status, prompt=used[0], completion=used[1]), (status, *used))
        given_up: Stage = (settled(request_id, status="void", prompt=0, completion=0), void)
        lives: list[list[Stage]] = [
            [sent_at_once, outcome],
            [sent_at_once],
            [queued, (Sent(request_id), at_bound), outcome],
            [queued, (Sent(request_id), at_bound)],
            [queued, given_up],
            [queued],
        ]
        return choices.choices(lives, weights=(8, 1, 3, 1, 1, 1))[0]


def ledger_of(store: UsageStore) -> Truth:
    """What the store says of every request."""
    listed = store.list_usage(UsageFilter(), MAX_LISTED)
    assert len({row.request_id for row in listed}) == len(listed)
    return {row.request_id: (row.status.value, row.prompt_tokens, row.completion_tokens) for row in listed}
