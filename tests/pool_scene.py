"""One pool of ordinary machines, for tests of the scaling policy and of what is remembered of it."""

from swell.state.scaling import LatencyProfile, Objective, Pool

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 0.0, 12.0, 0.03, 8e-5, kv_tokens=400_000)
POOL = Pool("X", PROFILE, usd_per_hour=2.0, start_seconds=120.0)
OBJECTIVE = Objective(5000, 100, 0.99)
