"""Outlier ejection with half-open probes, as a pure state machine per replica.

healthy ── failures in a row ≥ FAILURES_TO_EJECT ──► ejected until a time; what else was under way changes nothing
ejected ── that time passed, one request goes through as a probe ──► half-open
half-open ── success ──► healthy;   failure ──► ejected for twice as long
"""

from dataclasses import dataclass, replace

FAILURES_TO_EJECT = 3
FIRST_EJECTION_SECONDS = 1.0
LONGEST_EJECTION_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """How a replica has answered lately. Times are monotonic seconds."""

    failures: int = 0  # in a row
    ejected_until: float = 0.0
    ejections: int = 0  # in a row, sets how long the next one lasts
    probing: bool = False

    @property
    def is_ejected(self) -> bool:
        """Ejected, or half-open with its probe still out."""
        return self.ejections > 0


HEALTHY = Health()


def may_send(health: Health, now: float) -> bool:
    """Whether a request may go to the replica: healthy, or due for its one probe."""
    return not health.is_ejected or (not health.probing and now >= health.ejected_until)


def sent(health: Health) -> Health:
    """A request goes out; on an ejected replica it is the probe."""
    return replace(health, probing=True) if health.is_ejected else health


def succeeded(health: Health) -> Health:
    """An answer's head arrived in time."""
    return HEALTHY if health is not HEALTHY else health


def failed(health: Health, now: float) -> Health:
    """No connection, no answer in time, a broken answer, or 502/503."""
    failures = health.failures + 1
    if health.is_ejected:
        if not health.probing:  # it was sent before the ejection
            return replace(health, failures=failures)
    elif failures < FAILURES_TO_EJECT:
        return replace(health, failures=failures)
    lasts = min(LONGEST_EJECTION_SECONDS, FIRST_EJECTION_SECONDS * 2**health.ejections)
    return Health(failures=failures, ejected_until=now + lasts, ejections=min(health.ejections + 1, 16))


def gave_up(health: Health) -> Health:
    """The client left before the probe's outcome was known: probe again with the next request."""
    return replace(health, probing=False) if health.probing else health
