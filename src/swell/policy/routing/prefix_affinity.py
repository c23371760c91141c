"""Send prompts that begin alike to the same replica, so that its prefix cache is hit."""

from swell.policy.routing.base import Candidate, Request, View, bounded_ring_choice
from swell.policy.routing.least_outstanding_tokens import least_outstanding_tokens


def prefix_affinity(view: View, request: Request) -> Candidate | None:
    """Ring place of the prompt's leading block, loads bounded; without a prefix, least loaded."""
    if not request.prefix_key:
        return least_outstanding_tokens(view, request)
    return bounded_ring_choice(view, request.prefix_key)
