"""The models of the example: users, mines, and what the database keeps of them."""
import sqlalchemy as sa
from sqlalchemy import orm

from versions import tell_who, transaction_class, versioned

Base = orm.declarative_base()


class User(Base):
    __tablename__ = "users"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text, nullable=False)


Transaction = transaction_class(Base, User)


@versioned(Transaction)
class Mine(Base):
    __tablename__ = "mine"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column("mine_name", sa.Text, nullable=False)
    depth = sa.Column(sa.Numeric(6, 1))


@versioned(Transaction)
class Shift(Base):
    """A key of two columns, one of which has another name in the model."""
    __tablename__ = "Shift of a day"
    day = sa.Column(sa.Date, primary_key=True)
    number = sa.Column("No.", sa.Integer, primary_key=True)
    foreman = sa.Column(sa.Text)


Session = orm.sessionmaker(future=True)
tell_who(Session, Transaction)
