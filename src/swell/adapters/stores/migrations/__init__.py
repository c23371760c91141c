"""Alembic's scripts. They run when a store is opened; nobody calls alembic by hand."""
