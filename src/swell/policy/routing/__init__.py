"""Which replica serves a request. One function per policy; the registry is a plain mapping.

To add a policy: write a sibling with one function of the shape `Choose` and name it in `POLICIES`.
"""

from swell.policy.routing.base import Candidate, Choose, Request, View, build_view, fitting, key_hash
from swell.policy.routing.least_outstanding_tokens import least_outstanding_tokens
from swell.policy.routing.prefix_affinity import prefix_affinity
from swell.policy.routing.round_robin import round_robin
from swell.policy.routing.session_affinity import session_affinity

POLICIES: dict[str, Choose] = {
    "least_outstanding_tokens": least_outstanding_tokens,
    "prefix_affinity": prefix_affinity,
    "session_affinity": session_affinity,
    "round_robin": round_robin,
}

__all__ = ["POLICIES", "Candidate", "Choose", "Request", "View", "build_view", "fitting", "key_hash"]
