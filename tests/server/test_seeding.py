"""Use of the last minute, from sums by key to limits."""

from swell.server.seeding import use_of
from swell.state.records import SpoolUse


def test_use_is_booked_on_the_key_and_on_its_tenant() -> None:
    uses = [
        SpoolUse(key_id="a", tenant="search", requests=2, tokens=30),
        SpoolUse(key_id="b", tenant="search", requests=1, tokens=5),
    ]
    assert use_of(uses) == {
        "key:a:requests_per_minute": 2,
        "key:a:tokens_per_minute": 30,
        "key:b:requests_per_minute": 1,
        "key:b:tokens_per_minute": 5,
        "tenant:search:requests_per_minute": 3,
        "tenant:search:tokens_per_minute": 35,
    }


def test_nothing_used_is_nothing_booked() -> None:
    assert use_of([]) == {}
