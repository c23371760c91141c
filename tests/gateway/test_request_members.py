"""Any bytes at all are admitted or refused with a reason, and what goes upstream means what the client wrote."""

import json
from typing import Any

import pytest
from http_client import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES
from hypothesis import example, given
from hypothesis import strategies as st

from swell.gateway.request import Admitted, BadRequest, admit, json_depth_exceeds, model_name, read_members
from swell.state.snapshot import ModelEntry

PATHS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)
REQUIRED = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input", RESPONSES: "input", MESSAGES: "messages"}
LIMITS = {
    CHAT: ("max_completion_tokens", "max_tokens"),
    COMPLETIONS: ("max_tokens",),
    EMBEDDINGS: (),
    RESPONSES: ("max_output_tokens",),
    MESSAGES: ("max_tokens",),
}
_NAMES = {name for names in LIMITS.values() for name in names} | {"n_predict", "n_cmpl"}
FOREIGN = {path: _NAMES.difference(names) for path, names in LIMITS.items()}
MODEL = ModelEntry(
    name="m", upstream_model="real", endpoints=PATHS, routing="prefix_affinity", default_max_tokens=9,
    max_tokens_cap=50, n_cap=3,
)  # fmt: skip

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.integers(-2, 60),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
        st.sampled_from(['"usage":{}', "[{", "}]", '\\"', "\\"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=12,
)
names = st.one_of(
    st.text(),
    st.sampled_from(
        ["model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens", "max_completion_tokens"]
    ),
    st.sampled_from(["max_output_tokens", "n", "best_of", "n_predict", "n_cmpl", "tools", "user", "prompt_cache_key"]),
)
members = st.lists(st.tuples(names, values), max_size=8)
likely = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text()}), max_size=3),
        "prompt": st.one_of(st.text(), st.lists(st.text(), max_size=3), st.lists(st.integers(0, 9), max_size=3)),
        "input": st.text(),
        "stream": st.one_of(st.none(), st.booleans()),
        "stream_options": st.one_of(
            st.none(), st.dictionaries(st.sampled_from(["include_usage", "x"]), st.one_of(st.none(), st.booleans()))
        ),
        "max_tokens": st.one_of(st.none(), st.integers(1, 50)),
        "max_completion_tokens": st.one_of(st.none(), st.integers(1, 50)),
        "max_output_tokens": st.integers(1, 50),
        "n": st.one_of(st.none(), st.integers(1, 3)),
        "tools": st.lists(st.dictionaries(st.text(), st.text())),
    },
)


def written(pairs: list[tuple[str, Any]], *, ascii_only: bool, spaces: bool) -> bytes:
    """The pairs as one JSON object, duplicates and all."""
    comma, colon = (" , \n", "\t: ") if spaces else (",", ":")
    parts = [
        json.dumps(name, ensure_ascii=ascii_only) + colon + json.dumps(value, ensure_ascii=ascii_only)
        for name, value in pairs
    ]
    return ("{" + comma.join(parts) + "}").encode()


def try_admit(path: str, body: bytes) -> Admitted | BadRequest:
    try:
        found = read_members(body, depth=64)
        model_name(found)
        return admit(path, found, MODEL)
    except BadRequest as error:
        return error


def expected_upstream(path: str, sent: dict[str, Any]) -> dict[str, Any]:
    """What the engine must read."""
    expected = {**sent, "model": "real"}
    for name in FOREIGN[path]:
        if expected.get(name, 0) is None:
            del expected[name]
    limits = [name for name in LIMITS[path] if expected.get(name) is not None]
    for name in LIMITS[path]:
        if expected.get(name, 0) is None:
            del expected[name]
    if LIMITS[path] and not limits:
        expected[LIMITS[path][-1]] = 9
    if sent.get("stream") and path in (CHAT, COMPLETIONS):
        expected["stream_options"] = {**(sent.get("stream_options") or {}), "include_usage": True}
    return expected


@given(path=st.sampled_from(PATHS), first=likely, pairs=members, ascii_only=st.booleans(), spaces=st.booleans())
def test_what_is_admitted_means_what_the_client_wrote(
    path: str, first: dict[str, Any], pairs: list[tuple[str, Any]], ascii_only: bool, spaces: bool
) -> None:
    everything = [*first.items(), *pairs]
    sent = dict(everything)  # the last of those with one name, as parsers read it
    verdict = try_admit(path, written(everything, ascii_only=ascii_only, spaces=spaces))
    if isinstance(verdict, BadRequest):
        return
    got = json.loads(verdict.body)
    assert len(json.loads(verdict.body, object_pairs_hook=list)) == len(got)  # nothing is there twice
    assert got == expected_upstream(path, sent)
    assert verdict.stream == bool(path != EMBEDDINGS and sent.get("stream"))
    if verdict.stream and path in (CHAT, COMPLETIONS):
        assert verdict.wants_usage == bool((sent.get("stream_options") or {}).get("include_usage"))
    if path != EMBEDDINGS:
        choices = max(1, sent.get("n") or 1, sent.get("best_of") or 1)
        limit = max(got[name] for name in LIMITS[path] if name in got)
        assert verdict.completion_tokens_bound >= choices * limit
        assert limit <= 50


@given(path=st.sampled_from(PATHS), first=likely)
def test_a_plain_request_is_admitted(path: str, first: dict[str, Any]) -> None:
    verdict = try_admit(path, json.dumps(first).encode())
    options = first.get("stream_options")
    if REQUIRED[path] in first and (options is None or "x" not in options):
        is_foreign = any(first.get(name) is not None for name in FOREIGN[path])
        assert isinstance(verdict, BadRequest if is_foreign else Admitted)
    elif REQUIRED[path] not in first:
        assert isinstance(verdict, BadRequest)
        assert verdict.param == REQUIRED[path]


@given(path=st.sampled_from(PATHS), body=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@example(CHAT, b'{"model":"m","messages":[' + b"[" * 100_000)
@example(CHAT, b'{"model":"m","messages":"\xed\xa0\x80"}')
@example(CHAT, b'{"model":"m","messages":"\\ud800"}')
@example(CHAT, b'{"model":"m","messages":[],"max_tokens":1e400}')
@example(CHAT, b'{"model":"m","messages":[],"max_tokens":' + b"9" * 5000 + b"}")
@example(CHAT, b'\xef\xbb\xbf{"model":"m","messages":[]}')
@example(CHAT, b'{"model":"m","messages":[]}{}')
@example(CHAT, b'{"model":"m","messages":[],}')
@example(CHAT, b'{"model":"m","messages":[NaN]}')
@example(CHAT, b'{"\\ud800":1,"model":"m","messages":[]}')
def test_any_bytes_are_admitted_or_refused(path: str, body: bytes) -> None:
    verdict = try_admit(path, body)
    if isinstance(verdict, Admitted):
        assert json.loads(verdict.body)["model"] == "real"


@given(base=likely, path=st.sampled_from(PATHS), place=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_one_changed_byte_is_admitted_or_refused_and_never_misread(
    base: dict[str, Any], path: str, place: int, byte: int
) -> None:
    body = bytearray(json.dumps(base).encode())
    body[place % len(body)] = byte
    verdict = try_admit(path, bytes(body))
    if isinstance(verdict, Admitted):
        assert json.loads(verdict.body) == expected_upstream(path, json.loads(body))


@given(value=values, limit=st.integers(0, 6))
def test_depth_is_counted_as_a_parser_counts_it(value: Any, limit: int) -> None:
    def depth(of: Any) -> int:
        if isinstance(of, dict):
            return 1 + max(map(depth, of.values()), default=0)
        return 1 + max(map(depth, of), default=0) if isinstance(of, list) else 0

    for ascii_only in (False, True):
        assert json_depth_exceeds(json.dumps(value, ensure_ascii=ascii_only).encode(), limit) == (depth(value) > limit)


@given(text=st.text(max_size=300), path=st.sampled_from(PATHS))
def test_the_bound_covers_a_token_per_byte_of_the_prompt(text: str, path: str) -> None:
    content: Any = [{"role": "user", "content": text}] if REQUIRED[path] == "messages" else text
    verdict = try_admit(path, json.dumps({"model": "m", REQUIRED[path]: content}, ensure_ascii=False).encode())
    assert isinstance(verdict, Admitted)
    assert verdict.prompt_tokens_bound >= len(text.encode()) + 64
    assert 0 < verdict.prompt_tokens_estimate <= verdict.prompt_tokens_bound


@pytest.mark.parametrize("name", ["tools", "functions", "documents", "chat_template", "chat_template_kwargs", "system"])
def test_everything_that_may_become_prompt_counts(name: str) -> None:
    verdict = try_admit(CHAT, json.dumps({"model": "m", "messages": [], name: ["x" * 1000]}).encode())
    assert isinstance(verdict, Admitted)
    assert verdict.prompt_tokens_bound > 1000


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "n_cmpl"])
def test_a_limit_by_another_paths_name_gets_round_nothing(path: str, name: str) -> None:
    """llama.cpp obeys max_completion_tokens on every path, before the one that the path has."""
    verdict = try_admit(path, json.dumps({"model": "m", REQUIRED[path]: [], name: 60}).encode())
    assert isinstance(verdict, BadRequest)  # over the model's 50, or no name for this path
    null = try_admit(path, json.dumps({"model": "m", REQUIRED[path]: [], name: None}).encode())
    assert isinstance(null, Admitted)
    assert name not in json.loads(null.body) or name in LIMITS[path]


@pytest.mark.parametrize("prompts", [["a", "b", "c"], [[1], [2], [3]], [{"prompt_string": "a"}, {}, {}], [[1], "b", 3]])
def test_every_prompt_of_a_request_counts(prompts: list[Any]) -> None:
    verdict = try_admit(COMPLETIONS, json.dumps({"model": "m", "prompt": prompts, "max_tokens": 5}).encode())
    assert isinstance(verdict, Admitted)
    assert verdict.completion_tokens_bound == 15
    tokens = try_admit(COMPLETIONS, json.dumps({"model": "m", "prompt": [1, 2, 3], "max_tokens": 5}).encode())
    assert isinstance(tokens, Admitted)
    assert tokens.completion_tokens_bound == 5
    many = try_admit(COMPLETIONS, json.dumps({"model": "m", "prompt": ["a"] * 129}).encode())
    assert isinstance(many, BadRequest)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [({"user": "a"}, {"user": "b"}, False), ({"user": "a", "prompt_cache_key": "c"}, {"prompt_cache_key": "c"}, True)],
)
def test_what_names_a_session(first: dict[str, str], second: dict[str, str], same: bool) -> None:
    model = ModelEntry(name="m", upstream_model="m", endpoints=PATHS, routing="session_affinity")
    sessions = set()
    for who in (first, second):
        found = read_members(json.dumps({"model": "m", "messages": [], **who}).encode(), depth=64)
        sessions.add(admit(CHAT, found, model).session)
    assert (len(sessions) == 1) == same
