"""Version classes for SQLAlchemy models over the version tables of audit_log.

The database writes the versions; here they are only read, and who makes the
changes is told. What Mine.versions, previous, next, changeset and revert() mean
is what they mean in SQLAlchemy-Continuum, whose tables have the same shape: an
application that uses it goes on with it (option native_versioning) and needs
nothing of this.
"""
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import event, inspect, orm

INSERT, UPDATE, DELETE = 0, 1, 2


def transaction_class(base, user_class):
    """The view transaction: create_continuum_views('public', 'users') has made it."""

    class Transaction(base):
        __tablename__ = "transaction"
        id = sa.Column(sa.BigInteger, sa.Sequence("transaction_id_seq"), primary_key=True)
        issued_at = sa.Column(sa.DateTime, default=datetime.utcnow)
        remote_addr = sa.Column(sa.String(50))
        user_id = sa.Column(inspect(user_class).primary_key[0].type)
        user = orm.relationship(user_class, viewonly=True,
                                primaryjoin=lambda: orm.foreign(Transaction.user_id) == inspect(user_class).primary_key[0])

    return Transaction


class Version:
    """What every version class has beside its columns."""

    @property
    def _record(self):
        """The versions of the same record."""
        cls = type(self)
        return orm.object_session(self).query(cls).filter(
            *(getattr(cls, key) == getattr(self, key) for key in cls._keys))

    @property
    def previous(self):
        return self._record.filter(type(self).end_transaction_id == self.transaction_id).one_or_none()

    @property
    def next(self):
        return self._record.filter(type(self).transaction_id == self.end_transaction_id).one_or_none()

    @property
    def changeset(self):
        """{attribute: [old, new]} against the version before."""
        previous = self.previous
        pairs = {key: [getattr(previous, key, None), getattr(self, key)] for key in self._columns}
        return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

    def revert(self):
        """Makes the record what it was in this version: there again, or gone. The flush writes it, and its new version."""
        session = orm.object_session(self)
        record = session.get(self._parent, tuple(getattr(self, key) for key in self._keys))
        if self.operation_type == DELETE:
            if record is not None:
                session.delete(record)
            return None
        if record is None:
            record = self._parent()
            session.add(record)
        for key in self._columns:
            setattr(record, key, getattr(self, key))
        return record


def versioned(transaction):
    """Class decorator: gives a model its version class, and .versions."""

    def decorate(cls):
        mapper = inspect(cls)
        keys = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        columns = {mapper.get_property_by_column(column).key: column for column in cls.__table__.columns}
        body = {
            key: sa.Column(column.name, column.type, primary_key=column.primary_key, autoincrement=False)
            for key, column in columns.items()
        }
        body.update(
            transaction_id=sa.Column(sa.BigInteger, primary_key=True, autoincrement=False, index=True),
            end_transaction_id=sa.Column(sa.BigInteger, index=True),
            operation_type=sa.Column(sa.SmallInteger, nullable=False, index=True),
            valid_from=sa.Column(sa.DateTime(timezone=True), nullable=False),
            valid_to=sa.Column(sa.DateTime(timezone=True)),
        )
        base = next(ancestor for ancestor in cls.__mro__ if hasattr(ancestor, "metadata") and not hasattr(ancestor, "__table__"))
        version = type(cls.__name__ + "Version", (Version, base), {
            "__tablename__": cls.__table__.name + "_version",
            "__table_args__": {"schema": cls.__table__.schema},
            "_parent": cls, "_keys": keys, "_columns": list(columns), **body,
        })
        version.transaction = orm.relationship(
            transaction, viewonly=True, primaryjoin=orm.foreign(version.transaction_id) == transaction.id)
        cls.versions = orm.relationship(
            version, viewonly=True, lazy="dynamic", order_by=version.transaction_id,
            primaryjoin=sa.and_(*(getattr(cls, key) == orm.foreign(orm.remote(getattr(version, key))) for key in keys)))
        cls.Version = version
        return cls

    return decorate


def tell_who(session_class, transaction):
    """Before the first change of a database transaction, an entry of who makes it: session.info["user_id"], ["remote_addr"]."""

    @event.listens_for(session_class, "before_flush")
    def before_flush(session, *_):
        changed = any(hasattr(item, "versions") for items in (session.new, session.dirty, session.deleted) for item in items)
        if changed and "entry" not in session.info:
            # nextval and RETURNING: the id is the one that the view gives
            result = session.connection().execute(sa.insert(transaction.__table__).values(
                user_id=session.info.get("user_id"), remote_addr=session.info.get("remote_addr")))
            session.info["entry"] = result.inserted_primary_key[0]

    @event.listens_for(session_class, "after_transaction_end")
    def after_transaction_end(session, transaction):
        if transaction.parent is None:
            session.info.pop("entry", None)

    # what rolls back to a savepoint may take the entry with it
    @event.listens_for(session_class, "after_soft_rollback")
    def after_soft_rollback(session, _):
        session.info.pop("entry", None)
