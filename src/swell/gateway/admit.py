"""A request's claim on the limits of its key and tenant, and how one that finds no place is refused."""

from typing import TYPE_CHECKING

from swell.gateway.responses import Refusal
from swell.gateway.shares import Share, Waiter

if TYPE_CHECKING:
    from swell.gateway.directory import Key


class Claim:
    """One request, its tokens, and one place among the concurrent requests. All shares or none."""

    __slots__ = ("_holds", "_key", "_tokens")

    def __init__(self, key: "Key", tokens: int) -> None:
        self._key = key
        self._tokens = tokens  # as estimated before it runs
        self._holds = False

    def take(self) -> tuple[Share, int] | None:
        """Take from every share. If one is short, nothing is taken, and it is returned with what it must give."""
        taken = 0
        for share in self._key.unit_shares:
            if not share.take(1):
                self._undo(taken)
                return share, 1
            taken += 1
        tokens = self._tokens
        token_shares = self._key.token_shares
        for index, share in enumerate(token_shares):
            if not share.take(tokens):
                for earlier in token_shares[:index]:
                    earlier.put_back(tokens)
                self._undo(taken)
                return share, tokens
        self._holds = True
        return None

    def _undo(self, taken: int) -> None:
        for share in self._key.unit_shares[:taken]:
            share.put_back(1)

    def settle(self, used: int) -> None:
        """The request went out and used `used` tokens; the shares held an estimate."""
        if not self._holds:
            return
        for share in self._key.token_shares:
            share.settle(self._tokens, used)

    def give_back(self, *, went_out: bool) -> None:
        """The request has ended. One that never went out costs nothing."""
        if not self._holds:
            return
        self._holds = False
        key = self._key
        for share in key.concurrency_shares:
            share.put_back(1)
        if not went_out:
            for share in key.request_shares:
                share.put_back(1)
            for share in key.token_shares:
                share.put_back(self._tokens)

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting."""
        for share in (*self._key.unit_shares, *self._key.token_shares):
            share.forget(waiter)


def never_fits(share: Share, amount: int) -> Refusal:
    """429 for a request that is larger than the whole limit."""
    return Refusal(
        429,
        f"This request needs {amount} of the {share.limit_value} that {share.limit} allows; lower max_tokens or "
        "shorten the prompt.",
        code="rate_limit_exceeded",
    )


def overloaded(message: str, code: str) -> Refusal:
    """503 for a request that found no place in time."""
    return Refusal(503, f"{message} Try again shortly.", code=code, retry_after_seconds=1.0)


def too_late(waited_seconds: float) -> Refusal:
    """429 for a request that waits and cannot meet its objective any more; who comes back finds as long a queue."""
    return Refusal(
        429,
        f"No replica became free within this model's objective for the first token; waited {waited_seconds:.1f} s. "
        "Try again later.",
        code="too_late",
        retry_after_seconds=waited_seconds,
    )
