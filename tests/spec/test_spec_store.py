"""`server.store`: where a Postgres store is, without any secret in it."""

import pytest

from swell.errors import SpecError
from swell.spec import Spec, parse_spec

MODELS = 'models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9101"]}]\n'


def parse(store: str) -> Spec:
    return parse_spec(f"{MODELS}server: {{store: {store}}}\n", origin="swell.yaml")


def test_a_url_and_where_its_password_is() -> None:
    store = parse(
        '{url: "postgresql://swell@db.example/swell?sslmode=verify-full", password_env: DB_PASSWORD}'
    ).server.store
    assert store is not None
    assert (store.password_env, store.password_file) == ("DB_PASSWORD", None)
    assert parse_spec(MODELS, origin="swell.yaml").server.store is None


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        ('{url: "postgresql://swell:hunter2@db/swell"}', r"server.store.url: carries a password; take it out"),
        ('{url: "postgresql://swell@db/swell?password=hunter2"}', r"server.store.url: carries a password"),
        ('{url: "postgresql://swell@db/"}', r"server.store.url: names no database"),
        ('{url: "mysql://swell@db/hunter2"}', r"server.store.url: is not a URL such as postgresql://"),
        ('{url: "hunter2"}', r"server.store.url: is not a URL"),
        ('{url: "postgresql://[db/hunter2"}', r"server.store.url: is not a URL"),
        ("{password_env: A}", r"server.store.url"),
        (
            '{url: "postgresql://db/swell", password_env: "hunter2!"}',
            r"password_env: must be the name of an environment",
        ),
        (
            '{url: "postgresql://db/swell", password_env: A, password_file: b}',
            r"password_file: contradicts password_env",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_no_secret_is_repeated(store: str, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence) as caught:
        parse(store)
    assert "hunter2" not in str(caught.value)
