"""The trackers of a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; jobs of before have none."""
    op.add_column("job", sa.Column("track", sa.Text(), nullable=True))
