"""The raises of budgets of the store in memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from msgspec.structs import replace

from swell.errors import StateError
from swell.ports.store import MAX_LISTED
from swell.state.overrides import BudgetOverride
from swell.state.records import AuditEntry


class MemoryOverrides:
    """`swell.ports.store.OverrideStore` in a dictionary. `guarded` wraps each call, `note` adds to the audit log."""

    def __init__(self, guarded: Callable[[], AbstractContextManager[None]], note: Callable[[AuditEntry], None]) -> None:
        self._guarded = guarded
        self._note = note
        self._overrides: dict[str, BudgetOverride] = {}

    def add_override(self, override: BudgetOverride, audit: AuditEntry) -> None:
        with self._guarded():
            if override.override_id in self._overrides:
                raise StateError(f"the store already has the override {override.override_id}; choose another id")
            self._overrides[override.override_id] = override
            self._note(audit)

    def end_override(self, override_id: str, at_unix: float, audit: AuditEntry) -> BudgetOverride | None:
        with self._guarded():
            known = self._overrides.get(override_id)
            if known is None or known.ended_at_unix is not None or known.until_unix <= at_unix:
                return None
            ended = self._overrides[override_id] = replace(known, ended_at_unix=at_unix)
            self._note(audit)
            return ended

    def list_overrides(self, limit: int) -> list[BudgetOverride]:
        with self._guarded():
            return list(self._overrides.values())[::-1][: min(limit, MAX_LISTED)]

    def overrides_in_force(self, at_unix: float) -> list[BudgetOverride]:
        with self._guarded():
            return [
                each for each in self._overrides.values() if each.ended_at_unix is None and each.until_unix > at_unix
            ]
