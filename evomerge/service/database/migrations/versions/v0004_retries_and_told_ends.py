"""How many retries a job was asked for, and which of its attempts' ends a server's log tells."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the two columns.

    How many retries a job of before was asked for is not kept; it gets what it has left. Of such a
    job the log of its server tells all but the attempt that may still run.
    """
    op.add_column(
        "job", sa.Column("retries", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column(
        "job", sa.Column("told", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )
    op.execute(
        "update job set retries = retries_left, "
        "told = case when state in ('starting', 'running') then claim - 1 else claim end"
    )
