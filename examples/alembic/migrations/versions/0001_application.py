"""The application's own tables

Revision ID: 0001
Revises:
"""
from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False))
    op.create_table(
        "world_element",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("element_type", sa.String(50), nullable=False, index=True),
        sa.Column("attributes", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("location_id", sa.Integer, sa.ForeignKey("world_element.id", ondelete="SET NULL"), index=True))


def downgrade():
    op.drop_table("world_element")
    op.drop_table("users")
