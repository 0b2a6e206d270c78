"""What is tracked: both tables, versions of one, and the activity feed

Going back gives the tables back as they were: the triggers are gone, and the version table and the feed with what they
hold. The log itself stays, can still be read, and goes on with the next upgrade; what is changed meanwhile is not in it.

Revision ID: 0003
Revises: 0002
"""
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade():
    op.execute("SELECT audit_log.enable('users', baseline => true)")
    op.execute("SELECT audit_log.enable('world_element', baseline => true, versioned => true)")
    op.execute("SELECT audit_log.create_activity_table('activity', user_table => 'users', entity_type => 'integer')")
    op.execute("SELECT audit_log.describe('world_element', 'insert', 'element_created', '{name} has come into the world')")
    op.execute("SELECT audit_log.describe('world_element', 'update', 'element_renamed', '{name.old} is now called {name}')")


def downgrade():
    op.execute("SELECT audit_log.describe('world_element', 'insert', NULL, NULL)")
    op.execute("SELECT audit_log.describe('world_element', 'update', NULL, NULL)")
    op.execute("DROP TABLE activity")
    op.execute("SELECT audit_log.disable('world_element')")
    op.execute("SELECT audit_log.disable('users')")
    op.execute("DROP TABLE world_element_version")
