"""Keys: their shape, and that no mistyped, cut or hostile text gets past parsing."""

import hashlib
import hmac
import re
import string
import subprocess
import sys
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.errors import KeyFormatError
from swell.security import keys
from swell.security.keys import digest_key, new_key, new_secret_for, parse_key

PRINTABLE = string.digits + string.ascii_letters + string.punctuation + " "


def test_a_key_has_the_published_shape_and_its_id_is_found_again() -> None:
    key_id, text = new_key()
    assert re.fullmatch(r"sk-swell-[a-z0-9]{12}_[0-9A-Za-z]{43}[0-9a-f]{8}", text)
    assert parse_key(text) == parse_key(text.encode()) == key_id


def test_keys_do_not_repeat() -> None:
    made = [new_key() for _ in range(200)]
    assert len({key_id for key_id, _ in made}) == len({text[22:65] for _, text in made}) == 200


def test_the_secret_carries_256_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(keys, "randbits", lambda bits: asked.append(bits) or 2**bits - 1)
    highest = new_secret_for("abcdefghij12")
    monkeypatch.setattr(keys, "randbits", lambda bits: 0)
    assert asked == [256]
    assert parse_key(highest) == parse_key(new_secret_for("abcdefghij12")) == "abcdefghij12"
    assert highest[22:65] != "0" * 43


def test_a_second_secret_belongs_to_the_same_id() -> None:
    key_id, text = new_key()
    other = new_secret_for(key_id)
    assert parse_key(other) == key_id
    assert other != text


@pytest.mark.parametrize("key_id", ["", "short", "UPPERCASE123", "has_under_1x", "abcdefghij1é", "abcdefghijk12"])
def test_an_impossible_id_gets_no_secret(key_id: str) -> None:
    with pytest.raises(KeyFormatError):
        new_secret_for(key_id)


@given(position=st.integers(0, keys.KEY_CHARACTERS - 1), other=st.sampled_from(PRINTABLE))
def test_one_mistyped_character_is_always_noticed(position: int, other: str) -> None:
    _, text = new_key()
    mistyped = text[:position] + other + text[position + 1 :]
    if mistyped == text:
        assert parse_key(mistyped)
    else:
        with pytest.raises(KeyFormatError):
            parse_key(mistyped)


@given(position=st.integers(0, keys.KEY_CHARACTERS - 2))
def test_two_swapped_neighbours_are_always_noticed(position: int) -> None:
    _, text = new_key()
    swapped = text[:position] + text[position + 1] + text[position] + text[position + 2 :]
    if swapped != text:
        with pytest.raises(KeyFormatError):
            parse_key(swapped)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_no_text_makes_parsing_fail_in_another_way(text: bytes | str) -> None:
    with pytest.raises(KeyFormatError) as caught:
        parse_key(text)
    assert "swell keys create" in caught.value.message


@pytest.mark.parametrize("key_id", ["' OR 1=1;--x", "../../../etc", "ABCDEFGHIJKL", "a\x00bcdefghijk", "éabcdefghij"])
def test_a_right_checksum_does_not_excuse_a_wrong_id(key_id: str) -> None:
    body = b"sk-swell-" + key_id.encode()[:12].ljust(12, b"a") + b"_" + b"A" * 43
    with pytest.raises(KeyFormatError):
        parse_key(body + b"%08x" % crc32(body))


def test_a_right_checksum_does_not_excuse_a_wrong_secret() -> None:
    body = b"sk-swell-abcdefghij12_" + b"A" * 42 + b"-"
    with pytest.raises(KeyFormatError):
        parse_key(body + b"%08x" % crc32(body))


@pytest.mark.parametrize("cut", [slice(None, -1), slice(1, None), slice(None, 22), slice(0, 0)])
def test_a_cut_or_longer_key_is_refused_without_being_quoted(cut: slice) -> None:
    _, text = new_key()
    for wrong in (text[cut], text + "a", f" {text}", f"{text}\n"):
        with pytest.raises(KeyFormatError) as caught:
            parse_key(wrong)
        assert text[22:65] not in str(caught.value)


def test_the_digest_is_hmac_sha_256_of_the_whole_text() -> None:
    _, text = new_key()
    expected = hmac.new(b"pepper", text.encode(), hashlib.sha256).digest()
    assert digest_key(b"pepper", text) == digest_key(b"pepper", text.encode()) == expected
    assert digest_key(b"other", text) != expected


def test_importing_keys_stays_light() -> None:
    script = (
        "import sys; import swell.security.keys; "
        "sys.exit(bool({'cryptography', 'sqlalchemy', 'pydantic', 'msgspec'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
