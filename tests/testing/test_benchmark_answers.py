"""The benchmark's own reader of answers: right ones complete, wrong ones are refused, however they are cut up."""

import pytest
from benchmarks.gateway.answers import AnswerReader, BadAnswerError
from benchmarks.gateway.work import BODY_BYTES, Work

from swell.testing.upstream_script import Framing, Script, Writes
from swell.testing.upstream_wire import Question, render

STREAM = Work("stream", stream=True, chunks=5)
DOCUMENT = Work("json", stream=False, chunks=5)


def answer(work: Work, script: Script) -> bytes:
    question = Question(
        path="/v1/chat/completions",
        model="m",
        prompt_tokens=1,
        choices=1,
        inputs=1,
        token_limit=None,
        stream=work.stream,
        include_usage=False,
        script=script,
    )
    return b"".join(data for data, _ in render(question).steps)


@pytest.mark.parametrize("size", [1, 7, 50, 100_000])
@pytest.mark.parametrize("writes", list(Writes))
@pytest.mark.parametrize("work", [STREAM, DOCUMENT], ids=["stream", "json"])
def test_a_right_answer_completes_at_its_last_byte(work: Work, writes: Writes, size: int) -> None:
    data = answer(work, Script(chunks=5, writes=writes))
    reader = AnswerReader(work)
    for _ in range(2):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        verdicts = [reader.feed(piece) for piece in pieces]
        assert verdicts == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize(
    ("work", "script", "reason"),
    [
        (STREAM, Script(chunks=4), "chunks missing"),
        (DOCUMENT, Script(chunks=6), "content missing"),
        (STREAM, Script(chunks=5, status=503), "status 503"),
        (STREAM, Script(chunks=5, framing=Framing.EOF), "no length and not chunked"),
    ],
)
def test_a_wrong_answer_is_refused(work: Work, script: Script, reason: str) -> None:
    with pytest.raises(BadAnswerError, match=reason):
        AnswerReader(work).feed(answer(work, script))


def test_requests_have_the_size_that_the_method_states() -> None:
    assert BODY_BYTES * 0.9 <= len(STREAM.body()) <= BODY_BYTES * 1.1
