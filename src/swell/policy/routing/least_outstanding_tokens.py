"""Send to the replica that will be done with the tokens it still has to work off first."""

from swell.policy.routing.base import Candidate, Request, View


def least_outstanding_tokens(view: View, request: Request) -> Candidate | None:
    """Fewest outstanding tokens by speed, then fewest requests; ties turn round so that idle replicas share.

    Of idle replicas that are not alike, the fastest.
    """
    best: Candidate | None = None
    candidates = view.candidates
    size = len(candidates)
    least, fewest, fastest = 0.0, 0, 0.0
    for step in range(size):
        candidate = candidates[(request.turn + step) % size]
        if not candidate.has_room:
            continue
        speed, requests = candidate.speed, candidate.in_flight
        load = candidate.outstanding_tokens / speed
        if (
            best is None
            or load < least
            or (load == least and (requests < fewest or (requests == fewest and speed > fastest)))
        ):
            best, least, fewest, fastest = candidate, load, requests, speed
    return best
