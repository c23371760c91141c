"""API keys: `sk-swell-<id>_<secret><checksum>`, 73 characters.

The id (12 characters of a-z0-9) is public: it names the key in lists, limits and the ledger. The secret carries 256
random bits as 43 characters of base62. The checksum, 8 hex digits of CRC-32 over everything before it, is no
protection; it tells a mistyped or cut key apart from a wrong one before anything is looked up. Only a digest under
the pepper is ever stored. The gateway imports this module, so it stays free of heavy imports.
"""

import hmac
import string
from secrets import choice, randbits
from typing import NoReturn
from zlib import crc32

from swell.errors import KeyFormatError

PREFIX = "sk-swell-"
ID_CHARACTERS = 12
SECRET_CHARACTERS = 43  # 62**43 is just over 2**256
CHECKSUM_CHARACTERS = 8
DIGEST_BYTES = 32

_ID_ALPHABET = string.ascii_lowercase + string.digits
_SECRET_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX = PREFIX.encode()
_ID_BYTES = _ID_ALPHABET.encode()
_ID_START = len(PREFIX)
_ID_END = _ID_START + ID_CHARACTERS
_SECRET_START = _ID_END + 1
_SECRET_END = _SECRET_START + SECRET_CHARACTERS
KEY_CHARACTERS = _SECRET_END + CHECKSUM_CHARACTERS


def new_key() -> tuple[str, str]:
    """A fresh key: its id and its full text. The text is shown once and never stored."""
    key_id = "".join(choice(_ID_ALPHABET) for _ in range(ID_CHARACTERS))
    return key_id, new_secret_for(key_id)


def new_secret_for(key_id: str) -> str:
    """The text of another secret for an existing key, for rotation. Raises KeyFormatError at an impossible id."""
    if len(key_id) != ID_CHARACTERS or key_id.strip(_ID_ALPHABET):
        raise KeyFormatError(f"a key id is {ID_CHARACTERS} characters of a-z and 0-9; `swell keys list` shows the ids")
    body = f"{PREFIX}{key_id}_{_base62(randbits(256))}"
    return f"{body}{crc32(body.encode()):08x}"


def parse_key(text: bytes | str) -> str:
    """The id inside a key. Raises KeyFormatError, which never quotes the text, if it is not a well-formed key."""
    if isinstance(text, str):
        try:
            text = text.encode("ascii")
        except UnicodeEncodeError:
            _refuse()
    key_id = text[_ID_START:_ID_END]
    if (
        len(text) != KEY_CHARACTERS
        or not text.startswith(_PREFIX)
        or b"%08x" % crc32(text[:_SECRET_END]) != text[_SECRET_END:]
        or text[_ID_END] != 0x5F  # "_"
        or key_id.translate(None, _ID_BYTES)
        or not text[_SECRET_START:_SECRET_END].isalnum()
    ):
        _refuse()
    return key_id.decode("ascii")


def digest_key(pepper: bytes, text: bytes | str) -> bytes:
    """HMAC-SHA-256 of the whole key under the pepper: the only form in which a key is stored or compared."""
    return hmac.digest(pepper, text.encode() if isinstance(text, str) else text, "sha256")


def engine_key(pepper: bytes, model: str) -> str:
    """What replicas of a model that are alike ask for: the same for every server that has the pepper, kept nowhere."""
    return hmac.digest(pepper, b"engine\0" + model.encode(), "sha256").hex()


def _base62(number: int) -> str:
    digits = []
    for _ in range(SECRET_CHARACTERS):
        number, digit = divmod(number, 62)
        digits.append(_SECRET_ALPHABET[digit])
    return "".join(reversed(digits))


def _refuse() -> NoReturn:
    raise KeyFormatError(
        f"this is not a Swell key, or it was mistyped or cut: a key has {KEY_CHARACTERS} characters and begins with "
        f"{PREFIX}; copy it again, or make a new one with `swell keys create`"
    )
