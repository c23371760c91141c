"""Send the requests of one session to the same replica while it has room."""

from swell.policy.routing.base import Candidate, Request, View, around_ring
from swell.policy.routing.least_outstanding_tokens import least_outstanding_tokens


def session_affinity(view: View, request: Request) -> Candidate | None:
    """First candidate with room clockwise from the session's place; without a session, least loaded."""
    if not request.session_key:
        return least_outstanding_tokens(view, request)
    return next((c for c in around_ring(view, request.session_key) if c.has_room), None)
