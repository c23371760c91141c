"""Send to the replica with the fewest tokens still to be worked off."""

from swell.policy.routing.base import Candidate, Request, View


def least_outstanding_tokens(view: View, request: Request) -> Candidate | None:
    """Fewest outstanding tokens, then fewest requests; ties turn round so that idle replicas share."""
    best: Candidate | None = None
    size = len(view.candidates)
    for step in range(size):
        candidate = view.candidates[(request.turn + step) % size]
        if candidate.has_room and (
            best is None
            or (candidate.outstanding_tokens, candidate.in_flight) < (best.outstanding_tokens, best.in_flight)
        ):
            best = candidate
    return best
