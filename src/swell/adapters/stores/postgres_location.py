"""Where a Postgres store is and how it is reached, from a URL; what of it may be shown, and what never is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from swell.errors import StateError

CONNECT_SECONDS = 5
SECRETS = ("password", "sslpassword")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ALIVE = {  # a connection to a machine that is gone is noticed within half a minute
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


@dataclass(frozen=True)
class PostgresLocation:
    """libpq's parameters, kept out of `repr`, and a text that shows whom, where and what without any secret."""

    parameters: Mapping[str, str] = field(repr=False)
    shown: str

    @property
    def has_password(self) -> bool:
        """Whether a password is given here; libpq may find one elsewhere."""
        return "password" in self.parameters


def locate(url: str, password: str | None = None) -> PostgresLocation:
    """What a URL such as `postgresql://swell@db.example/swell?sslmode=verify-full` leads to.

    Its query may hold every parameter that libpq knows. Off this machine TLS is asked for unless `sslmode` says
    otherwise. Raises StateError, without repeating the URL, where it cannot be one.
    """
    try:
        if urlsplit(url).scheme not in ("postgresql", "postgres"):
            raise ValueError
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except (ValueError, ProgrammingError):
        raise StateError(  # nothing of the vendor's text: it quotes what it could not read, which may be a password
            "the URL of the store cannot be read; give one such as postgresql://swell@db.example:5432/swell, "
            "with reserved characters in it as %XX"
        ) from None
    if password is not None:
        given["password"] = password
    if not given.get("dbname"):
        raise StateError("the URL of the store names no database; end it with one, such as …@db.example/swell")
    defaults = {"connect_timeout": str(CONNECT_SECONDS), **_ALIVE}
    if not _is_local(given):
        defaults["sslmode"] = "require"
    return PostgresLocation(defaults | given | {"client_encoding": "UTF8"}, _shown(given))


def _is_local(given: Mapping[str, str]) -> bool:
    hosts = (given.get("hostaddr") or given.get("host") or "/").split(",")
    return all(host.startswith(("/", "@")) or host in _LOOPBACK for host in hosts)


def _shown(given: Mapping[str, str]) -> str:
    user = f"{given['user']}@" if given.get("user") else ""
    host = given.get("host") or given.get("hostaddr") or "this machine"
    port = f":{given['port']}" if given.get("port") else ""
    return f"{user}{host}{port}/{given['dbname']}"
