"""Each published schema, from a few literal rows of it; and what is wrong with a file is said where it is wrong."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from swell.errors import UserError
from swell.simulator.traffic import FORMATS, load
from swell.state.records import UsageRecord
from swell.state.traffic import Traffic
from swell.state.usage import UsageStatus

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def columns(traffic: Traffic) -> tuple[list[float], list[int], list[int]]:
    return traffic.arrival_seconds.tolist(), traffic.prompt_tokens.tolist(), traffic.output_tokens.tolist()


def test_azure_2023_keeps_100_ns_and_reads_wall_clock_as_utc(tmp_path: Path) -> None:
    rows = (
        "2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319601,3180,8\r\n2023-11-16 19:14:19.9280160,549,0"
    )
    traffic = load(written(tmp_path, AZURE + rows, "code.csv"))
    assert columns(traffic) == ([0.0, 0.0520001, 3435.948056], [4808, 3180, 549], [10, 8, 1])
    assert traffic.start_unix == datetime(2023, 11, 16, 18, 17, 3, 979960, UTC).timestamp()
    assert traffic.name == "code"


def test_azure_2024_mixes_fractions_offsets_and_neither(tmp_path: Path) -> None:
    rows = (
        "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00+00:00,2399,6\n"
        "2024-05-10 02:00:01.5+02:00,10,7\n2024-05-09 19:00:02-05:00,11,8\n2024-05-10T00:00:03.25Z,12,9\n"
        "2024-05-10 00:00:04,13,10\n2024-05-10 00:01,14,11\n"
    )
    traffic = load(written(tmp_path, AZURE + rows))
    assert columns(traffic) == (
        [0.0, 0.00993, 1.5, 2.0, 3.25, 4.0, 60.0], [2399, 2162, 10, 11, 12, 13, 14], [6, 5, 7, 8, 9, 10, 11]
    )  # fmt: skip
    assert traffic.start_unix == datetime(2024, 5, 10, tzinfo=UTC).timestamp()


def test_azure_2025_has_a_column_of_images(tmp_path: Path) -> None:
    rows = "2024-10-15 00:00:01.25,2,1500,40\n2024-10-15 00:00:03,0,9,1\n"
    text = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n" + rows
    assert columns(load(written(tmp_path, text))) == ([0.0, 1.75], [1500, 9], [40, 1])


def test_burstgpt_drops_the_calls_that_failed(tmp_path: Path) -> None:
    text = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,1087,0,1087,Conversation log\n118,GPT-4,417,276,693,API log\n"
    )
    traffic = load(written(tmp_path, text))
    assert columns(traffic) == ([0.0, 113.0], [472, 417], [18, 276])
    assert traffic.start_unix is None


def test_burstgpt_version_2_has_sessions_and_elapsed_times(tmp_path: Path) -> None:
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "19440110.0,1722ac82-0a46-4bf0-aa08-89794e7a2b3f,43,GPT-4,906,446,1352,Conversation log\n"
        "19440161.5,,,ChatGPT,36,29,65,API log\n"
    )
    assert columns(load(written(tmp_path, text))) == ([0.0, 51.5], [906, 36], [446, 29])


def test_mooncake_counts_milliseconds_and_hashes_blocks_of_512(tmp_path: Path) -> None:
    text = (
        '{"timestamp": 0, "input_length": 1000, "output_length": 500, "hash_ids": [46, 47]}\n'
        '{"timestamp": 27500, "input_length": 700, "output_length": 0, "hash_ids": [46, 2305]}\n'
    )
    traffic = load(written(tmp_path, text, "t.jsonl"))
    assert columns(traffic) == ([0.0, 27.5], [1000, 700], [500, 1])
    assert list(traffic.prefix_blocks) == [(46, 47), (46, 2305)]
    assert traffic.block_tokens == 512


def test_mooncakes_schema_without_hashes_has_no_prefixes(tmp_path: Path) -> None:
    text = (
        '{"timestamp": 10, "input_length": 4, "output_length": 5}\n\n'
        '{"timestamp": 20, "input_length": 6, "output_length": 7}'
    )
    traffic = load(written(tmp_path, text, "t.jsonl"))
    assert columns(traffic) == ([0.0, 0.01], [4, 6], [5, 7])
    assert len(traffic.prefix_blocks) == 0


def test_bailian_counts_seconds_and_hashes_blocks_of_16(tmp_path: Path) -> None:
    text = (
        '{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132, '
        '"type": "text", "turn": 2, "hash_ids": [1089, 1090, 18446744073709551615]}\n'
        '{"chat_id": 160, "parent_chat_id": -1, "timestamp": 61.014, "input_length": 5, "output_length": 2, '
        '"type": "file", "turn": 1, "hash_ids": []}\n'
    )
    traffic = load(written(tmp_path, text, "t.jsonl"))
    assert columns(traffic) == ([0.0, 0.1], [5, 521], [2, 132])
    assert list(traffic.prefix_blocks) == [(), (1089, 1090, 2**63 - 1)]
    assert traffic.block_tokens == 16


def test_servegen_requests(tmp_path: Path) -> None:
    text = "arrival_ms,prompt_tokens,output_tokens,client\n1324,4992,45,90\n1755,2063,45,90\n"
    traffic = load(written(tmp_path, text))
    assert columns(traffic) == ([0.0, 0.431], [4992, 2063], [45, 45])


def test_swells_own_usage_as_the_command_prints_it(tmp_path: Path) -> None:
    def record(at_ms: int | None, status: UsageStatus, prompt: int, completion: int) -> UsageRecord:
        return UsageRecord(
            request_id="req_{,}", key_id="k", tenant="t", model="m", endpoint="/v1/chat/completions", status=status,
            prompt_tokens=prompt, completion_tokens=completion, prompt_rate=0, completion_rate=0, charge_usd_nanos=0,
            reserved_at_unix_ms=at_ms, settled_at_unix_ms=None,
            replica_id="r", http_status=200, duration_ms=5, first_token_ms=1,
        )  # fmt: skip

    records = [
        record(1_700_000_009_500, UsageStatus.ESTIMATED, 30, 3),
        record(None, UsageStatus.SETTLED, 1, 1),
        record(1_700_000_005_000, UsageStatus.RESERVED, 99, 9999),
        record(1_700_000_004_000, UsageStatus.VOID, 0, 0),
        record(1_700_000_000_000, UsageStatus.SETTLED, 20, 2),
    ]
    path = tmp_path / "usage.json"
    path.write_bytes(msgspec.json.encode(records))
    traffic = load(path)
    assert columns(traffic) == ([0.0, 9.5], [20, 30], [2, 3])
    assert traffic.start_unix == 1_700_000_000.0
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    assert columns(load(path)) == columns(traffic)


@pytest.mark.parametrize(
    ("text", "start_unix"),
    [
        ("arrival_seconds,prompt_tokens,output_tokens\n10.25,3,4\n11,5,6\n", None),
        ("Arrival_MS;Input_Tokens;Completion_Tokens\n10250;3;4\n11000;5;6\n", None),
        ("output_tokens\ttimestamp\tprompt_tokens\n4\t10.25\t3\n6\t1.1e1\t5\n", None),
        ('timestamp,prompt_tokens,output_tokens,note\n10.25,3,4,"a, ""b"""\n11,"5",6,é\n', None),
        ("timestamp,input_length,output_length\n1700000000.25,3,4\n1700000001,5,6\n", 1_700_000_000.25),
        ("timestamp,prompt_tokens,output_tokens\n1700000000250,3,4\n1700000001000,5.0,6\n", 1_700_000_000.25),
        ("timestamp,prompt_tokens,output_tokens\n1700000000250000,3,4\n1700000001000000,5,6\n", 1_700_000_000.25),
        ("timestamp,input_tokens,output_length\n2023-11-14 22:13:20.25,3,4\n2023-11-14 22:13:21,5,6", 1_700_000_000.25),
        (
            '{"arrival_seconds":10.25,"prompt_tokens":3,"output_tokens":4}\n'
            '{"arrival_seconds":11,"prompt_tokens":5,"output_tokens":6}',
            None,
        ),
        (
            '[{"timestamp":"2023-11-14T22:13:20.250Z","input_tokens":3,"completion_tokens":4},\n'
            ' {"timestamp":"2023-11-14 22:13:21","input_tokens":5,"completion_tokens":6}]',
            1_700_000_000.25,
        ),
        ("\ufefftimestamp, prompt_tokens, output_tokens\r\n10.25, 3, 4\r\n11, 5, 6\r\n\r\n", None),
    ],
)  # fmt: skip
def test_files_with_obvious_names(tmp_path: Path, text: str, start_unix: float | None) -> None:
    traffic = load(written(tmp_path, text))
    assert columns(traffic) == ([0.0, 0.75], [3, 5], [4, 6])
    assert traffic.start_unix == start_unix


def test_a_format_may_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "arrival_ms,prompt_tokens,output_tokens,client\n0,1,2,3\n1500,1,2,3\n")
    assert columns(load(path, "generic")) == columns(load(path, "servegen")) == ([0.0, 1.5], [1, 1], [2, 2])


HEAD = "arrival_seconds,prompt_tokens,output_tokens\n"
OBJECT = '{"timestamp":1,"input_length":1,"output_length":1}\n'


@pytest.mark.parametrize(
    ("text", "format", "words"),
    [
        ("", None, ["is empty"]),
        ("\n\n", None, ["is empty"]),
        (HEAD, None, ["no request"]),
        ("a,b\n1,2\n", None, ["a, b", "azure, burstgpt", "arrival_seconds"]),
        ("1,2,3\n4,5,6\n", None, ["1, 2, 3", "Known formats"]),
        ("a,a\n1,2\n", None, ["line 1", "twice"]),
        (HEAD + "0,1,2\n", "excel", ["'excel'", "mooncake"]),
        (HEAD + "0,1,2\n", "azure", ["format azure needs the columns timestamp, contexttokens", "arrival_seconds"]),
        (HEAD + "0,1,2\n", "mooncake", ["is CSV"]),
        (HEAD + "0,1,2\n1,x,3\n", None, ["line 3", "column prompt_tokens", "'x'"]),
        (HEAD + "0,1,2\n1,,3\n", None, ["line 3", "column prompt_tokens", "is empty"]),
        (HEAD + "0,1,2\n1,2,-3\n", None, ["line 3", "column output_tokens", "-3"]),
        (HEAD + "0,1,2\n1,2,2.5\n", None, ["line 3", "column output_tokens", "2.5"]),
        (HEAD + "0,1,2\n1,2,99999999999\n", None, ["line 3", "column output_tokens"]),
        (HEAD + "0,1,2\nnan,2,3\n", None, ["line 3", "column arrival_seconds", "'nan'"]),
        (HEAD + "0,1,2\n1e30,2,3\n", None, ["line 3", "column arrival_seconds", "1e+30"]),
        (HEAD + "0,1,2\n1,2\n3,4,5\n", None, ["line 3", "has 2 cells", "has 3"]),
        (HEAD + "0,1,2\n1,2\n3,4,5,6\n", None, ["line 3", "has 2 cells"]),
        (HEAD + "0,1,2\n\n3,4,5\n", None, ["line 3", "is empty; remove it"]),
        (AZURE + "2023-11-16 18:17:03,1,2\r\n2023-13-16 18:17:03,1,2\r\n", None, ["line 3", "TIMESTAMP", "2023-13-16"]),
        (AZURE + "2023-11-16 18:17:03,1,2\r\n16.11.2023 18:17,1,2\r\n", None, ["line 3", "TIMESTAMP"]),
        (AZURE + "2023-11-16 18:17:03+0x:00,1,2\r\n", None, ["line 2", "TIMESTAMP"]),
        (OBJECT + "{oops\n", None, ["line 2", "JSON object"]),
        (OBJECT + '{"timestamp":2}\n', None, ["line 2", "input_length", "missing"]),
        ('{"timestamp":1,"input_length":true,"output_length":1}\n', None, ["line 1", "input_length", "'True'"]),
        ('{"timestamp":1,"input_length":1,"output_length":1,"hash_ids":["a"]}\n', None, ["line 1", "hash_ids"]),
        ('{"error":"no"}\n', None, ["error", "Known formats"]),
        ("[]", None, ["no trace format"]),
        ('[{"timestamp":1,"prompt_tokens":1,"output_tokens":1},', None, ["record 2"]),
        ('[{"timestamp":1,"prompt_tokens":1,"output_tokens":1},7]', None, ["record 2", "not a JSON object"]),
        ('{"timestamp":"yesterday","prompt_tokens":1,"output_tokens":1}', None, ["line 1", "timestamp", "yesterday"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_where_it_is(tmp_path: Path, text: str, format: str | None, words: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load(path, format)
    assert [word for word in words if word not in caught.value.message] == []
    assert str(path) in caught.value.message or format == "excel"


def test_formats_are_found_under_their_names() -> None:
    assert all(name == each.name for name, each in FORMATS.items())
    assert tuple(FORMATS)[-1] == "generic"
