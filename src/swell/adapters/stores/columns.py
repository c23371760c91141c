"""Types of columns that mean the same in SQLite and in Postgres, and sums of them.

SQLite's integers have 64 bits anyway; in Postgres money, times and tokens must be BIGINT. Text is compared byte by
byte everywhere: Postgres would follow the collation of its database, and rows would come in another order.
"""

from typing import Any

from sqlalchemy import BigInteger, Cast, ColumnElement, Integer, Text, cast, func

Whole = Integer().with_variant(BigInteger(), "postgresql")
"""A whole number of up to 64 bits."""

Words = Text().with_variant(Text(collation="C"), "postgresql")
"""Text without a bound, ordered by its bytes."""


def total(column: ColumnElement[Any]) -> Cast[int]:
    """The sum of whole numbers, as a whole number: Postgres would make it a decimal."""
    return cast(func.sum(column), BigInteger)
