"""A request's claim on the limits of its key and tenant, and how one that finds no place is refused."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from swell.gateway.budget_shares import BudgetShare, never_affordable
from swell.gateway.request import Admitted
from swell.gateway.responses import Refusal
from swell.gateway.shares import Share, Waiter, limit_refusal

if TYPE_CHECKING:
    from swell.gateway.directory import Key


class ShareHolder(Protocol):
    """Whose shares a request takes from: a key, or one of which a budget is throttled."""

    @property
    def unit_shares(self) -> tuple[Share, ...]:
        """A request takes one of each."""

    @property
    def request_shares(self) -> tuple[Share, ...]:
        """Of them, those of rates."""

    @property
    def concurrency_shares(self) -> tuple[Share, ...]:
        """Of them, those of places."""

    @property
    def token_shares(self) -> tuple[Share, ...]:
        """A request takes its tokens of each."""


class Claim:
    """One request, its tokens, its charge, and one place among the concurrent requests. All shares or none.

    While it waits for a share, its worker hands back none of what it needs of the shares before that one. Everybody
    takes shares in one order, so whoever waits for the last of them gets it: workers that each hold what another wants
    cannot stand in each other's way. It lasts no longer than the wait, and others on the worker may still spend it.
    """

    __slots__ = ("_budgets", "_charge", "_holds", "_keeps", "_key", "_tokens")

    def __init__(self, key: ShareHolder, tokens: int, charge: int = 0, budgets: Sequence[BudgetShare] = ()) -> None:
        self._key = key
        self._tokens = tokens  # as estimated before it runs
        self._charge = charge  # nano-dollars, a bound
        self._budgets = budgets
        self._holds = False
        self._keeps = False

    @classmethod
    def of(cls, key: "Key", admitted: Admitted, model: str, charge: int, unix_ms: int) -> "Claim":
        """The claim of a request for `model` that came at `unix_ms` and is charged at most `charge`."""
        tokens = admitted.prompt_tokens_estimate + admitted.completion_tokens_bound
        budgets = key.budgets(model, unix_ms) if charge else ()
        if key.curbs is None:
            return cls(key, tokens, charge, budgets)
        throttled = Throttled(key, key.curbs.throttles(model, unix_ms))
        return CurbedClaim(throttled, tokens, charge, budgets, admitted.served_model)

    def take(self) -> tuple[Share | BudgetShare, int] | None:
        """Take from every share. If one is short, nothing is taken, and it is returned with what it must give."""
        if self._keeps:
            self._keep_no_more()
        taken = 0
        for share in self._key.unit_shares:
            if not share.take(1):
                self._undo(taken)
                return self._short_of(share, 1)
            taken += 1
        tokens = self._tokens
        token_shares = self._key.token_shares
        for index, share in enumerate(token_shares):
            if not share.take(tokens):
                for earlier in token_shares[:index]:
                    earlier.put_back(tokens)
                self._undo(taken)
                return self._short_of(share, tokens)
        charge = self._charge
        for index, budget in enumerate(self._budgets):
            if not budget.take(charge):
                for reserved in self._budgets[:index]:
                    reserved.put_back(charge)
                for share in token_shares:
                    share.put_back(tokens)
                self._undo(taken)
                return self._short_of(budget, charge)
        self._holds = True
        return None

    def too_large(self) -> tuple[Share | BudgetShare, int] | None:
        """The first share that can never give what this request needs, however long it waits for the others."""
        return next((need for need in self._needs() if need[1] > need[0].limit_value), None)

    def _needs(self) -> list[tuple[Share | BudgetShare, int]]:
        """In the order in which they are taken."""
        needs: list[tuple[Share | BudgetShare, int]] = [(share, 1) for share in self._key.unit_shares]
        needs += [(share, self._tokens) for share in self._key.token_shares]
        needs += [(budget, self._charge) for budget in self._budgets]
        return needs

    def _short_of(self, short: Share | BudgetShare, amount: int) -> tuple[Share | BudgetShare, int]:
        self._keeps = True
        for share, need in self._needs():
            if share is short:
                break
            share.keep(self, need)
        return short, amount

    def _keep_no_more(self) -> None:
        self._keeps = False
        for share, _ in self._needs():
            share.keep_no_more(self)

    def _undo(self, taken: int) -> None:
        for share in self._key.unit_shares[:taken]:
            share.put_back(1)

    def settle(self, used: int, charge: int = 0) -> None:
        """The request went out, used `used` tokens and is charged; the shares held an estimate and a bound."""
        if not self._holds:
            return
        for share in self._key.token_shares:
            share.settle(self._tokens, used)
        for budget in self._budgets:
            budget.settle(self._charge, charge)

    def give_back(self, *, went_out: bool) -> None:
        """The request has ended. One that never went out costs nothing."""
        if not self._holds:
            if self._keeps:
                self._keep_no_more()
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
            for budget in self._budgets:
                budget.put_back(self._charge)

    def rate_headers(self) -> bytes:
        """The x-ratelimit lines of the tightest limits."""
        lines = b""
        for shares in (self._key.request_shares, self._key.token_shares):
            if shares:
                tightest = shares[0] if len(shares) == 1 else min(shares, key=_left_of)
                lines += tightest.rate_headers
        return lines

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting."""
        for share in (*self._key.unit_shares, *self._key.token_shares):
            share.forget(waiter)
        for budget in self._budgets:
            budget.forget(waiter)


class Throttled:
    """A key's shares, and those of its throttled budgets beside them."""

    __slots__ = ("concurrency_shares", "request_shares", "token_shares", "unit_shares")

    def __init__(self, key: ShareHolder, throttles: tuple[Share, ...]) -> None:
        self.unit_shares = throttles + key.unit_shares
        self.request_shares = throttles + key.request_shares
        self.concurrency_shares = key.concurrency_shares
        self.token_shares = key.token_shares


class CurbedClaim(Claim):
    """A claim while a budget is nearly used up: the answer says which model gave it, where another was asked for."""

    __slots__ = ("_served_model",)

    def __init__(
        self, key: ShareHolder, tokens: int, charge: int, budgets: Sequence[BudgetShare], served_model: str
    ) -> None:
        super().__init__(key, tokens, charge, budgets)
        self._served_model = served_model

    def rate_headers(self) -> bytes:
        """The lines of a claim, and the model's."""
        lines = super().rate_headers()
        return lines + b"x-swell-served-model: %b\r\n" % self._served_model.encode() if self._served_model else lines


def never_fits(share: Share | BudgetShare, amount: int) -> Refusal:
    """429 for a request that is larger than the whole limit."""
    if isinstance(share, BudgetShare):
        return never_affordable(share.spec, amount)
    return Refusal(
        429,
        f"This request needs {amount} of the {share.limit_value} that {share.limit} allows; lower max_tokens or "
        "shorten the prompt.",
        code="rate_limit_exceeded",
    )


def _left_of(share: Share) -> int:
    return share.remaining + share.balance


def overloaded(message: str, code: str) -> Refusal:
    """503 for a request that found no place in time."""
    return Refusal(503, f"{message} Try again shortly.", code=code, retry_after_seconds=1.0)


def unavailable(short: Share | BudgetShare | None, since: float) -> Refusal:
    """For a request that has waited since then for a share: 429 where the server said that the limit is reached."""
    if isinstance(short, Share) and short.denied_at >= since:
        return limit_refusal(short, short.retry_after_seconds)
    return overloaded("No share of this key's limits could be had in time.", "limits_unavailable")


def too_late(waited_seconds: float) -> Refusal:
    """429 for a request that waits and cannot meet its objective any more; who comes back finds as long a queue."""
    return Refusal(
        429,
        f"No replica became free within this model's objective for the first token; waited {waited_seconds:.1f} s. "
        "Try again later.",
        code="too_late",
        retry_after_seconds=waited_seconds,
    )
