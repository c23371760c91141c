"""Plain, gzip and zstd files are read by what they hold, piece by piece; the real traces load as published."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from swell.errors import UserError
from swell.simulator.traffic import csv_table, describe, json_table, load, stored

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def rows(count: int) -> str:
    lines = (f"{number * 7 % 1000 + number},{number % 900 + 1},{number % 70 + 1}" for number in range(count))
    return "arrival_ms,prompt_tokens,output_tokens\n" + "\n".join(lines) + "\n"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(data)


def in_two(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: pack(data[: len(data) // 3]) + pack(data[len(data) // 3 :])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd, in_two(gzip.compress), in_two(zstd)])
def test_a_file_is_what_its_first_bytes_say(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "trace.data"
    path.write_bytes(pack(rows(5000).encode()))
    traffic = load(path)
    sums = [len(traffic), int(traffic.prompt_tokens.sum()), int(traffic.output_tokens.sum())]
    assert sums == [5000, sum(n % 900 + 1 for n in range(5000)), sum(n % 70 + 1 for n in range(5000))]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_files_are_refused(tmp_path: Path, pack: Callable[[bytes], bytes], damage: str) -> None:
    data = bytearray(pack(rows(5000).encode()))
    if damage == "cut":
        del data[-40:]
    else:
        data[len(data) // 2] ^= 0x5A
        data[len(data) // 2 + 1] ^= 0x5A
    path = tmp_path / "trace.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged or cut short|line"):
        load(path)


@pytest.mark.parametrize("start", [b"PAR1....", b"PK\x03\x04....", b"BZh91AY", b"\xff\xfea\0"])
def test_files_of_other_kinds_are_named(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "trace"
    path.write_bytes(start)
    with pytest.raises(UserError, match="give CSV or JSON lines"):
        load(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "none.csv")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("piece_bytes", [1, 50, 1000, 10**6])
def test_the_size_of_the_pieces_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(rows(300))
    whole = load(path)
    monkeypatch.setattr(stored, "PIECE_BYTES", piece_bytes)
    pieced = load(path)
    for name in ("arrival_seconds", "prompt_tokens", "output_tokens"):
        assert getattr(whole, name).tolist() == getattr(pieced, name).tolist()
    path.write_text(rows(300) + "9,9\n")
    with pytest.raises(UserError, match="line 302: has 2 cells"):
        load(path)


@pytest.mark.parametrize("piece_bytes", [1, 13, 10**6])
def test_an_array_may_be_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    monkeypatch.setattr(stored, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(json_table, "_OBJECTS", 2)
    path = tmp_path / "trace.json"
    objects = (f'{{"timestamp": {n},\n "prompt_tokens": {n + 1}, "output_tokens": 2, "é": "}},{{"}}' for n in range(5))
    path.write_text("[\n" + ",\n".join(objects) + "\n]\n")
    traffic = load(path)
    assert traffic.arrival_seconds.tolist() == [0, 1, 2, 3, 4]
    assert traffic.prompt_tokens.tolist() == [1, 2, 3, 4, 5]


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LINE_BYTES", 1000)
    monkeypatch.setattr(stored, "PIECE_BYTES", 100)
    path = tmp_path / "trace.csv"
    path.write_text("a" * 2000)
    with pytest.raises(UserError, match="longer than 1,000 bytes"):
        load(path)


def test_rows_out_of_order_are_sorted_and_equal_times_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_seconds,prompt_tokens,output_tokens\n5,1,1\n3,2,1\n5,3,1\n3,4,1\n")
    traffic = load(path)
    assert traffic.arrival_seconds.tolist() == [0, 0, 2, 2]
    assert traffic.prompt_tokens.tolist() == [2, 4, 1, 3]


def test_quotes_outside_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b'arrival_seconds,prompt_tokens,output_tokens,note\n0,1,1,"a"\n1,1,1,"\xe9"\n')
    with pytest.raises(UserError, match="line 3: is not UTF-8"):
        load(path)


def test_moments_of_odd_form_are_read_one_by_one() -> None:
    assert csv_table.moment_of("1970-01-01T00:00:01") == 1_000_000_000
    assert csv_table.moment_of("19700102T000000Z") == 86_400_000_000_000
    assert csv_table.moment_of("tomorrow") is None


REAL = {
    "azure-llm-2023/AzureLLMInferenceTrace_code.csv.gz": (8_819, 0.954, 2048, 28),
    "azure-llm-2023/AzureLLMInferenceTrace_conv.csv.gz": (19_366, 0.973, 1155, 211),
    "mooncake/conversation_trace.jsonl.gz": (12_031, 0.982, 12_035, 343),
    "servegen/requests_m-large_d7-14_1.0rps.csv.gz": (604_514, 168.0, 1512, 189),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", REAL)
def test_the_real_traces_load_as_their_pages_say(name: str) -> None:
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"no data set at {path}; put the published trace there")
    requests, hours, prompt_mean, output_mean = REAL[name]
    traffic = load(path)
    found = describe(traffic)
    assert len(traffic) == requests
    assert found["seconds"] / 3600 == pytest.approx(hours, abs=0.001)
    assert (round(found["prompt_mean"]), round(found["output_mean"])) == (prompt_mean, output_mean)


@pytest.mark.shared_data
def test_mooncakes_blocks_can_be_shared_as_published() -> None:
    path = SHARED_DATA / "mooncake" / "conversation_trace.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no data set at {path}; put the published trace there")
    traffic = load(path)
    seen: set[int] = set()
    hits = 0
    for blocks in traffic.prefix_blocks:
        hits += next((place for place, block in enumerate(blocks) if block not in seen), len(blocks))
        seen.update(blocks)
    assert hits / sum(map(len, traffic.prefix_blocks)) == pytest.approx(0.366, abs=0.01)
    lengths = np.array([len(blocks) for blocks in traffic.prefix_blocks])
    assert (lengths * traffic.block_tokens >= traffic.prompt_tokens).all()


@pytest.mark.parametrize("column", ["prompt_tokens", "output_tokens"])
def test_more_tokens_than_any_request_has_are_refused_by_line_and_number(tmp_path: Path, column: str) -> None:
    path = tmp_path / "trace.csv"
    other = {"prompt_tokens": "output_tokens", "output_tokens": "prompt_tokens"}[column]
    path.write_text(f"arrival_seconds,{column},{other}\n0,10000000,10\n1,10,10\n")
    assert len(load(path)) == 2
    path.write_text(f"arrival_seconds,{column},{other}\n0,10,10\n1,2000000000,10\n")
    with pytest.raises(UserError, match=rf"line 3, column {column}: 2,000,000,000 tokens are more than the 10,000,000"):
        load(path)


def test_a_trace_of_more_than_a_year_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_seconds,prompt_tokens,output_tokens\n5,10,10\n31622405,10,10\n")
    assert load(path).seconds == 366 * 86400
    path.write_text("arrival_seconds,prompt_tokens,output_tokens\n0,10,10\n9e8,10,10\n")
    with pytest.raises(UserError, match="spans 10,417 days, and at most 366 are taken"):
        load(path)


def test_names_lose_only_what_tells_how_a_file_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "requests_1.0rps.csv.gz"
    path.write_bytes(gzip.compress(rows(3).encode()))
    assert re.fullmatch(r"requests_1\.0rps", load(path).name)
