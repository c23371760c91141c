"""What people and machines are told of prefix caches."""

from dataclasses import replace

import pytest

from review_catalogue import WRONG
from swell.cli.review_cache_words import prefix_cache, prefix_cache_lines
from swell.server.review_cache import Hits, MissedHits, PrefixCache
from swell.server.review_edits import Change, changed
from swell.server.review_saving import Saving
from swell.spec import parse_spec

MODEL = parse_spec(WRONG, origin="swell.yaml").models[0]
SAVING = Saving(3_270_000_000, 14_222_000_000, (2_104_000_000, 4_399_000_000), "hour", "medium")
MISSED = MissedHits("search", Hits(40, 1000, 620, 1.0), Hits(88, 2000, 420, 3.76), 5312.4, SAVING)
CACHE = PrefixCache(0.31, is_spread=True, is_compared=True, missed=(MISSED,))


def test_people_read_what_is_missed_what_it_is_worth_at_most_and_what_to_say() -> None:
    elastic = changed(MODEL, [Change(("replicas", "min"), 1)])
    assert list(prefix_cache_lines(elastic, CACHE)) == [
        "31% of its prompt tokens were found in a prefix cache",
        "tenant search: 62% of its prompt tokens were cached in 40 hours on one replica, and 21% in 88 hours over 3.8; "
        "routing by prefix would save up to 5,312 s of prefill, worth $3.27 ($2.10 to $4.40) and $14.22 a month "
        "(confidence medium)",
        "saved prefill is money as far as the fleet can shrink, and sooner first tokens otherwise; for it, say of "
        "chat: `routing: prefix_affinity`",
    ]
    assert "as far as you run fewer replicas" in list(prefix_cache_lines(MODEL, CACHE))[-1]


def test_of_many_tenants_the_first_are_named() -> None:
    lines = list(prefix_cache_lines(MODEL, replace(CACHE, missed=(MISSED,) * 8)))
    assert sum(line.startswith("tenant search") for line in lines) == 5
    assert "and 3 more tenants, which --json names" in lines


@pytest.mark.parametrize(
    ("cache", "count"), [(None, 0), (PrefixCache(), 0), (PrefixCache(0.3), 1), (PrefixCache(0.3, is_spread=True), 2)]
)
def test_nothing_is_said_that_is_not_known(cache: PrefixCache | None, count: int) -> None:
    lines = list(prefix_cache_lines(MODEL, cache))
    assert len(lines) == count
    assert not any("would save" in line for line in lines)
    if count == 2:
        assert "is not known" in lines[1]
    assert (prefix_cache(cache) is None) is (count == 0)


def test_machines_get_every_figure() -> None:
    document = prefix_cache(CACHE)
    assert document is not None
    (missed,) = document["missed_hits"]
    assert (document["cached_share"], document["compared"], missed["tenant"]) == (0.31, True, "search")
    assert missed["over_several"] == {
        "hours": 88, "replicas": 3.76, "prompt_tokens": 2000, "cached_tokens": 420, "cached_share": 0.21,
    }  # fmt: skip
    assert missed["at_most"] == {
        "prefill_seconds": 5312.4, "saving_usd_nanos": 3_270_000_000, "saving_usd": "3.270000000",
        "saving_usd_nanos_per_month": 14_222_000_000, "saving_usd_per_month": "14.222000000",
        "interval_usd_nanos": (2_104_000_000, 4_399_000_000), "interval_of": "hour",
    }  # fmt: skip
    assert missed["changes"] == {"routing": "prefix_affinity"}
