"""What the tables are made of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, DateTime, MetaData, text

from app.domain import lifecycle

metadata = MetaData()


def time_column(name: str, *, nullable: bool = False) -> Column[Any]:
    """A time; the database's own, where none is given and it can't be NULL."""
    default = None if nullable else text("clock_timestamp()")
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


def one_of(column: str, values: tuple[str, ...]) -> str:
    """SQL for that a column has one of these values."""
    return f"{column} IN ({lifecycle.sql_list(values)})"
