"""Where the store is, if it is not the encrypted file in the state directory. Its URL is shown, so it holds no secret.

What is wrong with the URL is told as a contradiction and not as a bad value, because messages show bad values.
"""

import re
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, Strict

from swell.spec.base import MAX_TEXT_LENGTH, Conflict, LocalPath, SpecModel

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_SECRET_OPTIONS = {"password", "sslpassword"}

StoreUrl = Annotated[str, Strict()]
Variable = Annotated[str, Strict()]  # judged in `conflicts`: a secret may have been put there


class StoreSpec(SpecModel):
    """A Postgres database instead of the file. SWELL_STORE_URL in the environment goes before it."""

    url: StoreUrl = Field(
        description="postgresql://USER@HOST:PORT/DATABASE, with libpq's options such as ?sslmode=verify-full."
    )
    password_env: Variable | None = Field(default=None, description="Variable with the password.")
    password_file: LocalPath | None = Field(default=None, description="File with the password.")

    def conflicts(self) -> list[Conflict]:
        found = [("url", problem)] if (problem := _url_problem(self.url)) else []
        if self.password_env is not None and not _VARIABLE.fullmatch(self.password_env):
            found.append(("password_env", "must be the name of an environment variable, and not the password itself"))
        if self.password_env is not None and self.password_file is not None:
            found.append(("password_file", "contradicts password_env; keep one of them"))
        return found


def _url_problem(url: str) -> str:
    example = "is not a URL such as postgresql://swell@db.example:5432/swell"
    if len(url) > MAX_TEXT_LENGTH or re.search(r"[\x00-\x20\x7f\\]", url):
        return example
    try:
        parts = urlsplit(url)
        options = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    except ValueError:
        return example
    if parts.scheme not in ("postgresql", "postgres"):
        return example
    if parts.password is not None or options & _SECRET_OPTIONS:
        return "carries a password; take it out, and give password_file or password_env"
    if not parts.path.strip("/") and "dbname" not in options:
        return "names no database; end it with one, such as …@db.example/swell"
    return ""
