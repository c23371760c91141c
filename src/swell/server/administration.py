"""Administrative acts on the store: synchronous, audited, the same with and without a running server.

The server calls these on its writer thread; a command calls them directly, under the state lock, where
no server runs. Every act names its principal and lands in the audit log with the change it made.
"""

import difflib
import hmac
import os
import pwd
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from swell.clock import Clock
from swell.errors import KeyFormatError, UserError
from swell.ports.store import Store
from swell.security.keys import digest_key, new_key, new_secret_for, parse_key
from swell.state.budgets import KeyBudget
from swell.state.records import AuditEntry, KeyRecord
from swell.state.snapshot import Limits
from swell.units import usd

if TYPE_CHECKING:
    from swell.spec.budgets import BudgetSpec

DEFAULT_TENANT = "default"
DEFAULT_GRACE_SECONDS = 24 * 3600.0
MAX_GRACE_SECONDS = 30 * 86400.0
MAX_LIFE_SECONDS = 100 * 365 * 86400.0  # of a key that ends at all: its date can be shown
MAX_NAME_CHARACTERS = 200
PRIORITIES = ("interactive", "standard", "batch")


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key is to be made with. `expires_seconds` from now; None: never."""

    name: str
    tenant: str = DEFAULT_TENANT
    expires_seconds: float | None = None
    priority: str = ""
    limits: Limits = Limits()


class ShownKey(msgspec.Struct, frozen=True):
    """A key's text, which is shown this once."""

    id: str
    key: str
    name: str
    tenant: str
    expires_at_unix: float | None = None
    previous_expires_at_unix: float | None = None


@dataclass(frozen=True)
class Administration:
    """The acts, over one store. `tenants` are the names that keys may be made for.

    `kept_key` is the file with the text of the one key that `swell up` made by itself.
    """

    store: Store
    pepper: bytes
    tenants: Sequence[str]
    clock: Clock
    kept_key: Path | None = None

    def create_key(self, request: NewKey, principal: str) -> ShownKey:
        """Make a key. Raises UserError for an unknown tenant or priority."""
        self._check(request)
        now = self.clock.unix()
        key_id, text = new_key()
        record = KeyRecord(
            key_id=key_id,
            name=request.name,
            tenant=request.tenant,
            digest=digest_key(self.pepper, text),
            created_at_unix=now,
            expires_at_unix=None if request.expires_seconds is None else now + request.expires_seconds,
            limits=request.limits,
            priority=request.priority,
        )
        detail: dict[str, str | int | float | bool | None] = {"name": request.name, "tenant": request.tenant}
        self.store.insert_key(record, self._audit(principal, "key.create", key_id, detail))
        return ShownKey(key_id, text, record.name, record.tenant, record.expires_at_unix)

    def create_first_key(self, name: str, principal: str) -> str:
        """The text of the first key of all; empty where there are keys already."""
        return "" if self.store.list_keys() else self.create_key(NewKey(name), principal).key

    def rotate_key(self, key_id: str, grace_seconds: float, principal: str) -> ShownKey:
        """Give the key a new secret; the old one works for `grace_seconds` more."""
        if not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
            raise UserError(f"the grace period must lie between 0 and {MAX_GRACE_SECONDS / 86400:g} days")
        text = new_secret_for(key_id)
        ends = self.clock.unix() + grace_seconds
        audit = self._audit(principal, "key.rotate", key_id, {"grace_seconds": grace_seconds})
        record = self.store.rotate_key(key_id, digest_key(self.pepper, text), ends, audit)
        if record is None:
            raise self._no_such_key(key_id)
        self._forget_text(key_id)
        return ShownKey(
            key_id, text, record.name, record.tenant, record.expires_at_unix, record.previous_expires_at_unix
        )

    def revoke_key(self, key_id: str, principal: str) -> KeyRecord:
        """End the key for good."""
        record = self.store.revoke_key(key_id, self.clock.unix(), self._audit(principal, "key.revoke", key_id, {}))
        if record is None:
            raise self._no_such_key(key_id)
        self._forget_text(key_id)
        return record

    def list_keys(self) -> list[dict[str, object]]:
        """What may be told of every key, oldest first."""
        now = self.clock.unix()
        return [key_facts(key, now, key_problem(key, self.tenants)) for key in self.store.list_keys()]

    def kept_text(self) -> str:
        """The kept key's text, or nothing where none is kept or it is not the text of a live key any more."""
        text, key_id = self._kept()
        record = self.store.get_key(key_id) if key_id else None
        if record is None or not record.is_live(self.clock.unix()):
            return ""
        return text if hmac.compare_digest(record.digest, digest_key(self.pepper, text)) else ""

    def _kept(self) -> tuple[str, str]:
        """The kept text and the id in it; empty where there is none."""
        if self.kept_key is None:
            return "", ""
        try:
            text = self.kept_key.read_text().strip()
            return text, parse_key(text)
        except (OSError, ValueError, KeyFormatError):
            return "", ""

    def _forget_text(self, key_id: str) -> None:
        if self.kept_key is not None and self._kept()[1] == key_id:
            self.kept_key.unlink(missing_ok=True)

    def note(self, principal: str, action: str, subject: str, **detail: str | int | float | bool | None) -> None:
        """Put an act that changes nothing in the store, such as `up`, into the audit log."""
        self.store.append_audit(self._audit(principal, action, subject, detail))

    def _audit(
        self, principal: str, action: str, subject: str, detail: dict[str, str | int | float | bool | None]
    ) -> AuditEntry:
        return AuditEntry(at_unix=self.clock.unix(), principal=principal, action=action, subject=subject, detail=detail)

    def _check(self, request: NewKey) -> None:
        if not request.name.strip() or len(request.name) > MAX_NAME_CHARACTERS or not request.name.isprintable():
            raise UserError(f"a key's name must have 1 to {MAX_NAME_CHARACTERS} printable characters")
        if request.tenant not in self.tenants:
            raise UserError(f"unknown tenant {request.tenant!r}; {_suggest(request.tenant, self.tenants)}")
        if request.priority and request.priority not in PRIORITIES:
            raise UserError(f"unknown priority {request.priority!r}; {_suggest(request.priority, PRIORITIES)}")
        if request.expires_seconds is not None and request.expires_seconds <= 0:
            raise UserError("a key must expire in the future; give a length of time such as --expires 30d")
        if request.expires_seconds is not None and not request.expires_seconds <= MAX_LIFE_SECONDS:
            raise UserError("a key may live at most 100 years; leave its expiry out for a key without end")
        problem = limits_problem(request.limits)
        if problem:
            raise UserError(problem)

    def _no_such_key(self, key_id: str) -> UserError:
        record = self.store.get_key(key_id)
        if record is not None:
            state = "revoked" if record.revoked_at_unix is not None else "expired"
            return UserError(f"key {key_id} is {state}; make another with: swell keys create NAME")
        live = [key.key_id for key in self.store.list_keys() if key.is_live(self.clock.unix())]
        return UserError(f"no key has the id {key_id!r}; {_suggest(key_id, live)}")


def limits_problem(limits: Limits) -> str:
    """What is wrong with the limits and what to do, or nothing: what a spec may say, a key may have."""
    from swell.spec.tenants import MAX_LIMIT  # late: commands that ask a server need no spec

    for name, value in limits.counts.items():
        if not 0 <= value <= MAX_LIMIT:
            return f"{name} must lie between 0 (admits nothing) and {MAX_LIMIT}; leave it out for no limit"
    try:
        key_budgets(limits.budgets)
    except ValueError as error:
        return str(error)
    return ""


def key_budgets(budgets: Sequence[KeyBudget]) -> "tuple[BudgetSpec, ...]":
    """A key's budgets as a spec has a tenant's. ValueError with a sentence where one makes no sense."""
    from pydantic import ValidationError  # late, as above

    from swell.spec.budgets import OrganisationSpec
    from swell.spec.problems import problems_of

    given = [
        {
            "usd": f"{usd(each.usd_nanos):f}",
            "period": each.period,
            "time_zone": each.time_zone,
            "model": each.model or None,
            "grace_usd": f"{usd(each.grace_usd_nanos):f}" if each.grace_usd_nanos else None,
            "at_limit": each.at_limit,
            "throttle_requests_per_minute": each.throttle_requests_per_minute,
        }
        for each in budgets
    ]
    try:
        return OrganisationSpec.model_validate({"budget": given}).budget
    except ValidationError as error:
        raise ValueError(f"the key's {problems_of(error, OrganisationSpec)[0]}") from error


def key_problem(key: KeyRecord, tenants: Collection[str]) -> str:
    """Why a live key is refused, where these are the tenants, and what to do; or nothing."""
    if key.tenant not in tenants:  # whose limits nobody knows any more: none at all would be the wrong guess
        return f"the spec has no tenant {key.tenant!r}; put it back into the spec, or revoke the key"
    problem = limits_problem(key.limits)
    return f"{problem}: revoke it and make another" if problem else ""


def key_facts(record: KeyRecord, now_unix: float, problem: str = "") -> dict[str, object]:
    """What may be told about a key: everything but its digests. A live one with a `problem` is refused."""
    problem = problem if record.is_live(now_unix) else ""
    if record.revoked_at_unix is not None:
        state = "revoked"
    elif not record.is_live(now_unix):
        state = "expired"
    elif problem:
        state = "refused"
    elif record.previous_expires_at_unix is not None and record.previous_expires_at_unix > now_unix:
        state = "rotating"
    else:
        state = "live"
    return {
        "id": record.key_id,
        "name": record.name,
        "tenant": record.tenant,
        "state": state,
        "priority": record.priority or None,
        "limits": msgspec.structs.asdict(record.limits),
        "created_at_unix": record.created_at_unix,
        "expires_at_unix": record.expires_at_unix,
        "previous_expires_at_unix": record.previous_expires_at_unix,
        "revoked_at_unix": record.revoked_at_unix,
        "refused": problem or None,
    }


def current_principal() -> str:
    """The operating system's user, as `name(uid)`: the name alone can be set by the environment."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "user"
    return f"{name}({uid})"


def _suggest(given: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, valid, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"valid are: {', '.join(sorted(valid)[:10])}" if valid else "there is none"
