"""The application's models, and two over what the database keeps: its log, and its activity feed."""
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects.postgresql import JSONB

Base = orm.declarative_base()


class User(Base):
    __tablename__ = "users"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text, nullable=False)
    activities = orm.relationship("Activity", back_populates="user", order_by="Activity.id", passive_deletes=True)


class WorldElement(Base):
    """A place, a person, a thing: what it is like is in attributes, and it may belong to another one."""
    __tablename__ = "world_element"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text, nullable=False)
    element_type = sa.Column(sa.String(50), nullable=False, index=True)
    attributes = sa.Column(JSONB, nullable=False, server_default=sa.text("'{}'"))
    location_id = sa.Column(sa.ForeignKey("world_element.id", ondelete="SET NULL"), index=True)
    location = orm.relationship("WorldElement", remote_side=[id])


class Activity(Base):
    """The activity feed: audit_log.create_activity_table() makes it, in just this form."""
    __tablename__ = "activity"
    id = sa.Column(sa.Integer, primary_key=True, index=True)
    timestamp = sa.Column(sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now(), index=True)
    user_id = sa.Column(sa.ForeignKey("users.id", ondelete="SET NULL"), index=True)
    activity_type = sa.Column(sa.String(50), nullable=False, index=True)
    description = sa.Column(sa.Text, nullable=False)
    entity_id = sa.Column(sa.Integer, index=True)
    user = orm.relationship(User, back_populates="activities")

    def __repr__(self):
        return f"<Activity {self.id}: {self.activity_type} by {self.user.name if self.user else 'nobody'}: {self.description:.60}>"


class AuditLog(Base):
    """The log, to be read only: a view of audit_log, of which any more columns can be mapped."""
    __tablename__ = "audit_logs"
    __table_args__ = {"schema": "audit_log"}
    id = sa.Column(sa.BigInteger, primary_key=True)
    timestamp = sa.Column(sa.DateTime(timezone=True))
    user_id = sa.Column(sa.Text)
    action_type = sa.Column(sa.Text)
    table_name = sa.Column(sa.Text)
    record_id = sa.Column(sa.Text)
    changes = sa.Column(JSONB)
