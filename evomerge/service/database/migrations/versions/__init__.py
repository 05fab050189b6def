"""The changes of the tables, in order; alembic runs them from inside the package."""
