"""The database of the service: SQLite in the data folder, or PostgreSQL."""
