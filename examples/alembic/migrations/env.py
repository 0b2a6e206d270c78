from alembic import context
import sqlalchemy as sa

from models import Base


def include_object(item, name, kind, reflected, compare_to):
    """What is not for Alembic to make or drop."""
    if kind == "table":
        # the log and its views: the extension's
        if item.schema == "audit_log":
            return False
        # version tables: audit_log keeps them up with their tables
        if reflected and compare_to is None and name.endswith("_version"):
            return False
    return True


options = dict(target_metadata=Base.metadata, compare_type=True, compare_server_default=True, include_object=include_object)
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with sa.create_engine("postgresql+psycopg2://").connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
