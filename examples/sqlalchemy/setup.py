"""Makes the example's tables, keeps their versions, and lets the role named use them:  setup.py ROLE"""
import sys

import sqlalchemy as sa

from models import Base, Mine, Shift, User

engine = sa.create_engine("postgresql+psycopg2://", future=True)
role = engine.dialect.identifier_preparer.quote(sys.argv[1])
with engine.begin() as connection:
    # the version tables and the view transaction are the database's
    Base.metadata.create_all(connection, tables=[model.__table__ for model in (User, Mine, Shift)])
    connection.execute(sa.text("INSERT INTO users VALUES (1, 'Anna'), (2, 'Ben')"))
    connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS audit_log"))
    connection.execute(sa.text("SELECT audit_log.enable(x::regclass, versioned => true) FROM unnest(ARRAY['mine', '\"Shift of a day\"']) x"))
    connection.execute(sa.text(f'GRANT SELECT, INSERT, UPDATE, DELETE ON users, mine, "Shift of a day" TO {role}'))
    connection.execute(sa.text("SELECT audit_log.create_continuum_views('public', 'users')"))
