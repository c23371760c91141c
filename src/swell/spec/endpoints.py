"""URLs of engines that somebody else runs."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from swell.spec.base import Text


def _endpoint(value: str) -> str:
    problem = _problem(value)
    if problem:
        raise PydanticCustomError("endpoint", problem)
    return value.rstrip("/").removesuffix("/v1").rstrip("/")


def _problem(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return "is not a URL such as http://127.0.0.1:8000"
    if parts.scheme not in ("http", "https"):
        return "must begin with http:// or https://"
    if not parts.hostname or port == 0 or any(character.isspace() for character in value):
        return "is not a URL such as http://127.0.0.1:8000"
    if "@" in parts.netloc:
        return "carries credentials; name the variable that holds the key in api_key_env instead"
    if parts.query or parts.fragment or value.endswith(("?", "#")):
        return "must not have a query or a fragment"
    return ""


Endpoint = Annotated[Text, AfterValidator(_endpoint)]
"""An http(s) URL, the prefix of `/v1/...`; a trailing `/v1` as OpenAI clients write it is taken off."""
