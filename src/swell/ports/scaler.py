"""Port of scaling policies: what the live loop and the simulator call once per interval."""

from typing import Protocol

from swell.state.scaling import Decision, Observation


class Scaler(Protocol):
    """A scaling policy with its memory. Deterministic: equal observations in equal order give equal decisions.

    It may keep what it saw, and nothing else: no clock, no randomness but from a seed it was made with, no I/O.
    """

    @property
    def interval_seconds(self) -> float:
        """How often it wants to be asked."""

    def decide(self, seen: Observation) -> Decision:
        """How many replicas of each pool there shall be from now on. Decides "hold" where it saw nothing."""
