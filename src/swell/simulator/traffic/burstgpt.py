"""BurstGPT, a campus's calls of ChatGPT and GPT-4 through Azure over 121 days.

Published at github.com/HPMLL/BurstGPT (README, "Schema"):

    Timestamp        submission time, seconds from midnight of the first day (`19440110.0`)
    Session ID       in the files of version 2
    Elapsed time     in the files of version 2: seconds from request to the end of the response
    Model            ChatGPT or GPT-4
    Request tokens   length of the request
    Response tokens  length of the response; 0 where the call failed
    Total tokens     their sum
    Log Type         Conversation log or API log

Failed calls are dropped: how long an answer they would have got is not known.
"""

from swell.simulator.traffic.format import Rows, TraceFormat, moments, needs, tokens
from swell.simulator.traffic.table import Chunk


def _rows(chunk: Chunk) -> Rows:
    rows = Rows(
        moments(chunk, "timestamp"), tokens(chunk, "request tokens"), tokens(chunk, "response tokens"), is_unix=False
    )  # fmt: skip
    return rows.only(rows.output_tokens > 0)


BURSTGPT = TraceFormat(
    name="burstgpt",
    title="BurstGPT",
    lacking=needs("timestamp", "request tokens", "response tokens"),
    rows=_rows,
    container="csv",
)
