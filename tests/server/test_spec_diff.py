"""Differences between specs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.errors import UserError
from swell.server.spec_diff import Difference, check_change, differences
from swell.spec import Spec, parse_spec

BASE = "{models: [{name: chat, source: a.gguf, replicas: %s}, {name: code, source: b.gguf}], tenants: [%s]}"


def spec(replicas: str = "0..3", tenants: str = "{name: a}, {name: b}") -> Spec:
    return parse_spec(BASE % (replicas, tenants), origin="swell.yaml")


def test_values_are_told_by_their_path() -> None:
    assert differences(spec(), spec(replicas="0..5")) == [Difference("models[chat].replicas.max", "3", "5")]


def test_named_things_go_by_name_and_not_by_place() -> None:
    assert differences(spec(), spec(tenants="{name: b}, {name: a}")) == []
    assert differences(spec(), spec(tenants="{name: b}")) == [Difference("tenants[a]", "a", None)]
    assert differences(spec(), spec(tenants="{name: c}, {name: a}, {name: b}")) == [Difference("tenants[c]", None, "c")]


def test_a_list_without_names_is_shown_whole() -> None:
    before = parse_spec("models: [{name: m, endpoints: ['http://a:1']}]", origin="x")
    after = parse_spec("models: [{name: m, endpoints: ['http://a:1', 'http://b:1']}]", origin="x")
    [endpoints] = [each for each in differences(before, after) if each.path.endswith("endpoints")]
    assert (endpoints.before or "").count("http") == 1
    assert (endpoints.after or "").count("http") == 2


@given(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_they_are_none_exactly_where_nothing_differs(one: tuple[int, int], other: tuple[int, int]) -> None:
    before, after = (spec(replicas=f"{min(pair)}..{max(pair)}") for pair in (one, other))
    found = differences(before, after)
    assert bool(found) == (before != after)
    assert [(each.path, each.after, each.before) for each in found] == [
        (each.path, each.before, each.after) for each in differences(after, before)
    ]


@pytest.mark.parametrize("server", ["store: {url: 'postgresql://u@h/d'}", "custom_resources: {}"])
def test_another_store_or_place_of_resources_needs_a_restart(server: str) -> None:
    other = parse_spec(f"models: [{{name: m, source: a.gguf}}]\nserver: {{{server}}}", origin="x")
    with pytest.raises(UserError, match="swell down"):
        check_change(spec(), other)
