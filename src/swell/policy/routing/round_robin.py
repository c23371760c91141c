"""Each replica in turn."""

from swell.policy.routing.base import Candidate, Request, View


def round_robin(view: View, request: Request) -> Candidate | None:
    """The first candidate with room, counted from the request's turn."""
    size = len(view.candidates)
    for step in range(size):
        candidate = view.candidates[(request.turn + step) % size]
        if candidate.has_room:
            return candidate
    return None
