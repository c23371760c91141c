"""What a turn of the mix came to, as a decision that says which lever set what. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from swell.state.scaling import Decision, Option

_POOLS_SAID = 6


@dataclass(frozen=True, slots=True)
class Turn:
    """Counts by pool, and why."""

    serving: dict[str, int]
    leaving: dict[str, int]  # besides, until others are ready
    standing_in: int  # of those that serve: on-demand replicas in place of spot
    avoided: tuple[str, ...]  # spot pools that took or refused a replica lately
    short: float  # the share of the need that is not provided for
    is_cut: bool  # the ceiling of spend keeps it from being more
    usd_per_hour: float
    batch: dict[str, int] = field(default_factory=dict)  # besides, for requests of priority batch
    batch_need: float = 0.0  # in replicas of the first pool

    @property
    def counts(self) -> dict[str, int]:
        """Of every pool, whatever for."""
        return {name: count + self.leaving[name] + self.batch.get(name, 0) for name, count in self.serving.items()}


def told(asked: Decision, turn: Turn, decided: Sequence[tuple[str, int]], *, is_hold: bool) -> Decision:
    """The decision: how much is needed as `asked`, and how it is had."""
    leaving = sum(turn.leaving.values())
    binding = asked.binding
    if turn.is_cut:
        binding = "budget"
    elif turn.standing_in:
        binding = "stand-in"
    elif leaving and not is_hold:
        binding = "handover"
    elif turn.batch_need and not asked.replicas:
        binding = "batch"
    why = asked.reason if asked.is_hold else asked.reason.partition(": ")[2]  # how many there are is said below
    parts = [f"{why}; {_mix(turn)} for {asked.replicas} of {asked.counts[0][0]}"]
    if turn.standing_in:
        parts.append(f"{turn.standing_in} on demand stand in for spot that is not sure to come")
    if leaving:
        parts.append(f"{leaving} more stay until others are ready")
    if turn.batch_need:
        parts.append(f"{_listed(turn.batch)} besides for {turn.batch_need:.2f} of batch, which may wait")
    if turn.avoided:
        parts.append(f"avoided for what they took or refused: {', '.join(turn.avoided)}")
    if turn.short > 0:
        given_up = f"{turn.short:.0%} of what is needed is given up"
        parts.append(f"the ceiling of spend binds, {given_up}" if turn.is_cut else f"{given_up}: no more is to be had")
    inputs: tuple[tuple[str, float], ...] = (
        ("usd_per_hour", turn.usd_per_hour), ("standing_in", float(turn.standing_in)), ("leaving", float(leaving)),
        ("short", turn.short),
    )  # fmt: skip
    if turn.batch_need:
        inputs += (("batch", turn.batch_need), ("batch_replicas", float(sum(turn.batch.values()))))
    return replace(
        asked,
        counts=tuple(decided),
        reason="; ".join(parts),
        binding=binding,
        is_hold=is_hold,
        inputs=asked.inputs + inputs,
        rejected=asked.rejected + tuple(Option(0, f"{name}: it took or refused a replica") for name in turn.avoided),
    )


def _mix(turn: Turn) -> str:
    return _listed(turn.serving)


def _listed(counts: dict[str, int]) -> str:
    used = [f"{count} {name}" for name, count in counts.items() if count]
    more = f" and {len(used) - _POOLS_SAID} more pools" if len(used) > _POOLS_SAID else ""
    return (", ".join(used[:_POOLS_SAID]) + more) or "nothing"
