"""Scaling decisions as rows."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select

from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import decisions
from swell.ports.store import MAX_LISTED
from swell.state.records import DecisionRecord

_encode = msgspec.json.Encoder().encode
_decode_inputs = msgspec.json.Decoder(dict[str, float]).decode
_decode_rejected = msgspec.json.Decoder(tuple[tuple[int, str], ...]).decode


class DecisionRows:
    """`swell.ports.store.DecisionStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_decisions(self, made: Sequence[DecisionRecord], keep: int) -> None:
        if not made:
            return
        with self._database.writing() as connection:
            for decision in made:
                values = msgspec.structs.asdict(decision)
                values |= {
                    "inputs": _encode(decision.inputs).decode(),
                    "rejected": _encode(decision.rejected).decode(),
                }
                statement = insert(connection, decisions).values(values)
                connection.execute(statement.on_conflict_do_update(index_elements=["decision_id"], set_=values))
            for model in {decision.model for decision in made}:
                _prune(connection, model, keep)

    def list_decisions(self, model: str | None, limit: int) -> list[DecisionRecord]:
        query = select(decisions).order_by(decisions.c.entry.desc()).limit(min(limit, MAX_LISTED))
        if model is not None:
            query = query.where(decisions.c.model == model)
        with self._database.reading() as connection:
            return [_to_decision(row) for row in connection.execute(query)]


def _prune(connection: Connection, model: str, keep: int) -> None:
    own = decisions.c.model == model
    oldest = select(decisions.c.entry).where(own).order_by(decisions.c.entry.desc()).limit(1).offset(keep)
    connection.execute(delete(decisions).where(own, decisions.c.entry <= oldest.scalar_subquery()))


def _to_decision(row: Row[Any]) -> DecisionRecord:
    fields = dict(row._mapping)
    del fields["entry"]
    inputs, rejected = _decode_inputs(fields["inputs"]), _decode_rejected(fields["rejected"])
    return DecisionRecord(**fields | {"inputs": inputs, "rejected": rejected})
