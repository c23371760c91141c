"""What the gateway reads of a request body, and the body it sends on. Pure.

The body is cut once into its top-level members, each kept as the client wrote it, and put together
again. So a member that was given twice reaches the engine once (the last one, as most parsers read
it), and no engine can understand a request otherwise than it was admitted.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from swell.state.snapshot import ModelEntry

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
INFERENCE_PATHS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES)

# What a chat template may add to the text of a prompt, in tokens: markers per message are covered by
# the bytes of the JSON around each message; this covers a default system text, and tool preambles.
TEMPLATE_ALLOWANCE_TOKENS = 64
TOOLS_ALLOWANCE_TOKENS = 512

_OUTPUT_LIMITS: dict[str, tuple[str, ...]] = {
    CHAT: ("max_completion_tokens", "max_tokens"),
    COMPLETIONS: ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
    MESSAGES: ("max_tokens",),
    EMBEDDINGS: (),
}
_REQUIRED = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input", RESPONSES: "input", MESSAGES: "messages"}
# Engine-specific names that would get round the limits; the public name is given in the refusal.
_BYPASSES = {"n_predict": "max_tokens", "n_cmpl": "n"}
_LIMIT_NAMES = frozenset(name for names in _OUTPUT_LIMITS.values() for name in names)
# What must not be in a request for a path: names of limits that count elsewhere, which some engines obey here too.
_FOREIGN = {path: _LIMIT_NAMES.difference(names) | _BYPASSES.keys() for path, names in _OUTPUT_LIMITS.items()}


class BadRequest(Exception):  # noqa: N818 - it is a verdict on the request, named as HTTP names it
    """The request is refused with status 400 (or 413); `code` is machine-readable."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class Admitted(msgspec.Struct, frozen=True):
    """A request that may be sent, with its bounds in tokens."""

    body: bytes
    stream: bool
    wants_usage: bool  # the client asked for the usage event itself
    prompt_tokens_bound: int
    completion_tokens_bound: int
    choices: int
    prompt_tokens_estimate: int  # for rate limits: four bytes a token
    prefix: bytes
    session: bytes
    served_model: str = ""  # where it is another one than was asked for


Members = dict[str, msgspec.Raw]
_decode_members = msgspec.json.Decoder(Members).decode
_decode_str = msgspec.json.Decoder(str).decode
_decode_count = msgspec.json.Decoder(int | None).decode
_decode_flag = msgspec.json.Decoder(bool | None).decode
_decode_members_or_none = msgspec.json.Decoder(Members | None).decode
_decode_prompts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_AS_BRACES = bytes.maketrans(b"[]", b"{}")
_TRUE = msgspec.Raw(b"true")
_USAGE_OPTIONS = msgspec.Raw(b'{"include_usage":true}')


def json_depth_exceeds(body: bytes, limit: int) -> bool:
    """Whether arrays and objects nest deeper than `limit`. Cheap where there are few brackets.

    Brackets inside strings are removed first; then each pass takes away the innermost pairs.
    """
    if not _has_more_brackets(body, limit):
        return False
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(_AS_BRACES, _NOT_BRACKETS)
    for _ in range(limit):
        inner = brackets.replace(b"{}", b"")
        if len(inner) == len(brackets):  # none left, or they do not match
            break
        brackets = inner
    return bool(brackets)


def _has_more_brackets(body: bytes, limit: int) -> bool:
    """Whether there are more than `limit` opening brackets. `split` finds one at a time, `count` reads bytewise."""
    return len(body.split(b"{", limit + 1)) + len(body.split(b"[", limit + 1)) - 2 > limit


def read_members(body: bytes, *, depth: int) -> Members:
    """Cut a JSON object into its members. Raises BadRequest."""
    if json_depth_exceeds(body, depth):
        raise BadRequest(f"The JSON nests deeper than {depth} levels; flatten it.", code="json_too_deep")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"The body is not valid UTF-8 (byte {error.start}).", code="invalid_utf8") from None
    try:
        return _decode_members(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not a JSON object: {error}", code="invalid_json") from None


def model_name(members: Members) -> str:
    """The model that is asked for. Raises BadRequest."""
    if "model" not in members:
        raise BadRequest("Name a model in the member 'model'; GET /v1/models lists them.", param="model")
    name: str = _read(members, "model", _decode_str, "a string")
    return name


def admit(path: str, members: Members, model: ModelEntry) -> Admitted:
    """Check the members against the model's limits and build the body that goes upstream.

    `members` is changed. Raises BadRequest.
    """
    required = _REQUIRED[path]
    if required not in members:
        raise BadRequest(f"The member '{required}' is missing.", param=required)
    if not members.keys().isdisjoint(_FOREIGN[path]):
        _refuse_foreign(path, members)
    stream = "stream" in members and bool(_read(members, "stream", _decode_flag, "true or false"))
    choices, completion_bound = 1, 0
    if path == EMBEDDINGS:
        stream = False
    else:
        choices = _choices(path, members, model)
        completion_bound = choices * _output_limit(path, members, model)
    allowance = TEMPLATE_ALLOWANCE_TOKENS + (TOOLS_ALLOWANCE_TOKENS if "tools" in members else 0)
    wants_usage = True
    if stream and path in (CHAT, COMPLETIONS):
        wants_usage = _ask_for_usage(members)
    if model.upstream_model != model.name:
        members["model"] = msgspec.Raw(_encode(model.upstream_model))
    body = _encode(members)
    prompt_bytes = len(body)  # engines take prompt text from members that no list can name in full
    return Admitted(
        body=body,
        stream=stream,
        wants_usage=wants_usage,
        prompt_tokens_bound=prompt_bytes + allowance,
        completion_tokens_bound=completion_bound,
        choices=choices,
        prompt_tokens_estimate=prompt_bytes // 4 + 1,
        prefix=bytes(memoryview(members[required])[: model.prefix_bytes])
        if model.routing == "prefix_affinity"
        else b"",
        session=_session(members) if model.routing == "session_affinity" else b"",
    )


def _ask_for_usage(members: Members) -> bool:
    """Make the engine report usage at the end of a stream; return whether the client wanted it."""
    if "stream_options" not in members:
        members["stream_options"] = _USAGE_OPTIONS
        return False
    options = _read_optional(members, "stream_options", _decode_members_or_none, "an object") or {}
    wanted = bool(_read_optional(options, "include_usage", _decode_flag, "true or false"))
    if not wanted:
        options["include_usage"] = _TRUE
        members["stream_options"] = msgspec.Raw(_encode(options))
    return wanted


def _choices(path: str, members: Members, model: ModelEntry) -> int:
    """How many completions the request makes the engine produce."""
    choices = 1
    if path == CHAT and "n" not in members and "best_of" not in members:
        return choices
    for name in ("n", "best_of"):
        value = _read_optional(members, name, _decode_count, "a whole number")
        if value is None:
            continue
        if not 1 <= value <= model.n_cap:
            raise BadRequest(f"'{name}' is {value}; this model allows 1 to {model.n_cap}.", param=name)
        choices = max(choices, value)
    if path == COMPLETIONS and bytes(memoryview(members["prompt"])[:1]) == b"[":
        prompts = _read(members, "prompt", _decode_prompts, "a string or an array")
        if not all(bytes(memoryview(prompt)[:1]).isdigit() for prompt in prompts):  # else one prompt as token ids
            if len(prompts) > model.prompts_cap:
                raise BadRequest(f"{len(prompts)} prompts; this model takes {model.prompts_cap}.", param="prompt")
            choices *= max(1, len(prompts))
    return choices


def _output_limit(path: str, members: Members, model: ModelEntry) -> int:
    """The request's limit on output tokens; the model's default is put in where there is none."""
    limit: int | None = None
    for name in _OUTPUT_LIMITS[path]:
        value = _read_optional(members, name, _decode_count, "a whole number")
        if value is None:
            members.pop(name, None)
            continue
        if not 1 <= value <= model.max_tokens_cap:
            raise BadRequest(f"'{name}' is {value}; this model allows 1 to {model.max_tokens_cap}.", param=name)
        limit = value if limit is None else max(limit, value)
    if limit is None:
        limit = model.default_max_tokens
        members[_OUTPUT_LIMITS[path][-1]] = msgspec.Raw(b"%d" % limit)
    return limit


def _refuse_foreign(path: str, members: Members) -> None:
    """Raise BadRequest for a name that would get round the limits; drop it where it is null."""
    for name in [name for name in members if name in _FOREIGN[path]]:
        if bytes(members[name]) == b"null":
            del members[name]
            continue
        instead = _BYPASSES.get(name) or next(iter(_OUTPUT_LIMITS[path]), "")
        hint = f"Use '{instead}' instead of '{name}'." if instead else f"Leave out '{name}'; it means nothing here."
        raise BadRequest(hint, param=name)


def _session(members: Members) -> bytes:
    """What names the session: OpenAI's `prompt_cache_key`, else `user`."""
    for name in ("prompt_cache_key", "user"):
        if name in members:
            return bytes(members[name])
    return b""


def _read(members: Members, name: str, decode: Callable[[Any], Any], expected: str) -> Any:
    try:
        return decode(members[name])
    except (msgspec.DecodeError, RecursionError):
        shown = bytes(memoryview(members[name])[:40]).decode("utf-8", "replace")
        raise BadRequest(f"'{name}' is {shown}; it must be {expected}.", param=name) from None


def _read_optional(members: Members, name: str, decode: Callable[[Any], Any], expected: str) -> Any:
    return _read(members, name, decode, expected) if name in members else None
