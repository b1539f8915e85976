"""${message}

Revises: ${down_revision | comma,n}. Created: ${create_date}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """What the previous version of the code can live with: add first, remove one release later."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """The way back."""
    ${downgrades if downgrades else "pass"}
