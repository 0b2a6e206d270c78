"""The extension

Going back drops the log with it: all that was logged is gone for good. To keep it, go back to this revision only
(alembic downgrade 0002), or dump the database first.

Revision ID: 0002
Revises: 0001
"""
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade():
    op.execute("CREATE EXTENSION IF NOT EXISTS audit_log")


def downgrade():
    op.execute("DROP EXTENSION audit_log")
