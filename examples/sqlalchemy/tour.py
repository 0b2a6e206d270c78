"""What was, who did it, and back again: runs after setup.py, as the role named there."""
from datetime import date, datetime, timedelta
from decimal import Decimal

import sqlalchemy as sa

from models import Mine, Session, Shift
from versions import DELETE, INSERT, UPDATE

ANNA, BEN = 1, 2
engine = sa.create_engine("postgresql+psycopg2://", future=True)
began = datetime.utcnow() - timedelta(seconds=5)


def session_of(user_id):
    return Session(bind=engine, info={"user_id": user_id, "remote_addr": "192.0.2.7"})


def show(title, versions):
    print(title)
    for version in versions:
        operation = {INSERT: "inserted", UPDATE: "updated", DELETE: "deleted"}[version.operation_type]
        user = version.transaction.user
        print(f"  {operation} by {user.name if user else 'nobody known'}: {version.changeset}")


with session_of(ANNA) as session:
    session.add(Mine(id=1, name="Kettle", depth=Decimal("120.5")))
    session.commit()
with session_of(BEN) as session:
    mine = session.get(Mine, 1)
    mine.name = "Old Kettle"
    session.flush()
    mine.depth = Decimal("121.0")  # the same transaction: the same version
    session.commit()
with session_of(ANNA) as session:
    session.get(Mine, 1).name = "Kettle No. 1"
    session.commit()

with session_of(BEN) as session:
    mine = session.get(Mine, 1)
    show("All versions, the current one included", mine.versions)
    first, second, third = mine.versions
    assert third.name == mine.name and third.valid_to is None and third.next is None
    assert second.previous is first and second.next is third and first.previous is None
    assert first.valid_to == second.valid_from and first.end_transaction_id == second.transaction_id
    assert began < second.transaction.issued_at < datetime.utcnow() + timedelta(seconds=5)
    assert second.transaction.remote_addr == "192.0.2.7"
    assert mine.versions.filter(Mine.Version.operation_type == UPDATE).count() == 2

    first.revert()
    session.commit()
    show("Reverted to the first", mine.versions.offset(3))
    assert (mine.name, mine.depth) == ("Kettle", Decimal("120.5"))

    session.delete(mine)
    session.commit()
    versions = session.query(Mine.Version).order_by(Mine.Version.transaction_id)
    show("Deleted", versions.offset(4))

    mine = versions.offset(4).first().previous.revert()
    session.commit()
    show("The deletion reverted", versions.offset(5))
    assert session.get(Mine, 1) is mine and mine.versions.count() == 6

    versions.offset(4).first().revert()  # a deletion's version: gone again
    session.commit()
    assert session.get(Mine, 1) is None
    show("And deleted once more", versions.offset(6))

with session_of(ANNA) as session:
    shift = Shift(day=date(2026, 1, 2), number=1, foreman="Olga")
    session.add(shift)
    session.add(Shift(day=date(2026, 1, 2), number=2, foreman="Paul"))
    session.commit()
    with session.begin_nested():
        shift.foreman = "Nina"
    shift.foreman = "Nora"
    session.flush()
    savepoint = session.begin_nested()
    shift.foreman = "nobody"
    session.flush()
    savepoint.rollback()
    session.info["user_id"] = BEN
    shift.foreman = "Ole"
    session.commit()
    show("A key of two columns, a savepoint kept and one rolled back", shift.versions)
    assert session.query(Shift.Version).count() == 4

with engine.connect() as connection:
    for table in ("mine_version", '"Shift of a day_version"', "transaction"):
        try:
            connection.execute(sa.text(f"DELETE FROM {table}"))
            raise SystemExit(f"{table} can be altered")
        except sa.exc.ProgrammingError:
            connection.rollback()
print("Versions cannot be altered by the application")
