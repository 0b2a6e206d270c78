"""What the log knows of changes made in every way: python3 tour.py, after alembic upgrade head."""
import io
import json

import sqlalchemy as sa

from app import Session, application, engine
from audit import current_user
from models import Activity, AuditLog, User, WorldElement


def log_of(session, **what):
    return session.query(AuditLog).filter_by(table_name="world_element", **what).order_by(AuditLog.id).all()


# ---- who: set where a request is authenticated, here by hand
with Session.begin() as session:
    session.add_all([User(id=1, name="Anna"), User(id=2, name="Ben")])
current_user.set(1)

# ---- the ORM
with Session.begin() as session:
    village = WorldElement(id=6, name="Kettlebrook", element_type="place", attributes={"climate": {"rain": "often"}})
    anvil = WorldElement(id=7, name="Anvil", element_type="thing", location=village,
                         attributes={"material": {"kind": "iron", "rust": 0.2}, "tags": ["heavy"]})
    session.add_all([village, anvil])
with Session.begin() as session:
    anvil = session.get(WorldElement, 7)
    anvil.attributes = {**anvil.attributes, "material": {"kind": "iron", "rust": 0.5}}
current_user.set(2)

# ---- bulk statements, of the ORM and of Core, and raw SQL
with Session.begin() as session:
    session.query(WorldElement).filter(WorldElement.id >= 6).update(
        {"name": WorldElement.name + "!"}, synchronize_session=False)
with engine.begin() as connection:
    connection.execute(sa.insert(WorldElement), [
        {"id": n, "name": f"Nail {n}", "element_type": "thing", "location_id": 6} for n in range(10, 110)])
    connection.execute(sa.update(WorldElement).where(WorldElement.id == 7).values(location_id=None))
    connection.execute(sa.text("UPDATE world_element SET attributes = attributes || '{\"lost\": true}' WHERE id = 7"))
with engine.begin() as connection:
    connection.exec_driver_sql("DELETE FROM world_element WHERE id >= 10")

# ---- a web request: its user, and what it was
status = []
application({"REMOTE_USER": "1", "PATH_INFO": "/7", "wsgi.input": io.StringIO(json.dumps({"lost": False}))}, lambda s, _: status.append(s))
assert status == ["204 No Content"]
assert current_user.get() == 2

with Session() as session:
    # ---- reading it
    updates = log_of(session, record_id="7", action_type="UPDATE")
    assert [(entry.user_id, entry.changes) for entry in updates] == [
        ("1", {"attributes": {"material": {"rust": [0.2, 0.5]}}}),
        ("2", {"name": ["Anvil", "Anvil!"]}),
        ("2", {"location_id": [6, None]}),
        ("2", {"attributes": {"lost": [True]}}),
        ("1", {"attributes": {"lost": [True, False]}}),
    ], updates
    assert [entry.user_id for entry in log_of(session, record_id="7", action_type="INSERT")] == ["1"]
    assert len(log_of(session, user_id="2", action_type="INSERT")) == 100
    assert len(log_of(session, user_id="2", action_type="DELETE")) == 100
    assert all(entry.timestamp.tzinfo for entry in updates)
    path, = session.execute(sa.text(
        "SELECT context ->> 'path' FROM audit_log.transactions WHERE id = (SELECT transaction_id FROM audit_log.audit_logs WHERE id = :id)"),
        {"id": updates[-1].id}).one()
    assert path == "/7"
    assert session.execute(sa.text("SELECT count(*) FROM world_element_version WHERE id = 7")).scalar() == 5

    # ---- the feed, from both ends
    ben = session.get(User, 2)
    assert [activity.description for activity in ben.activities][:2] == ["Kettlebrook is now called Kettlebrook!", "Anvil is now called Anvil!"]
    newest = session.query(Activity).order_by(Activity.timestamp.desc(), Activity.id.desc()).first()
    assert newest.user is ben and newest.entity_id == 109
    first = session.query(Activity).order_by(Activity.id).first()
    print(first)
    assert repr(first) == f"<Activity {first.id}: element_created by Anna: Kettlebrook has come into the world>"
    entries = len(ben.activities)
with Session.begin() as session:
    mine = Activity(activity_type="note", description="written through the model", user_id=2)
    session.add(mine)
with Session.begin() as session:
    session.delete(session.get(User, 2))
with Session() as session:
    assert session.query(Activity).filter_by(user_id=None).count() == entries + 1, "deleting the user keeps the entries"
    for row in session.execute(sa.text("SELECT activity_type, count(*) FROM activity GROUP BY 1 ORDER BY 1")):
        print(*row)

# ---- and nobody changes the log through its model
with Session() as session:
    session.add(AuditLog(id=1, table_name="x"))
    try:
        session.commit()
        raise SystemExit("the log was changed")
    except sa.exc.DBAPIError:
        session.rollback()
print("The log cannot be changed by the application")
