"""
Plain psycopg2: who makes the changes of a transaction, and why.

    python3 who.py      (in a database with audit_log, named by the environment as psql's is)
"""
import json
from contextlib import contextmanager

import psycopg2


@contextmanager
def transaction(connection, user_id=None, **context):
    """
    A transaction whose changes are this user's:

        with transaction(connection, 42, reason="typo") as cursor:
            cursor.execute("UPDATE …")

    SET LOCAL takes no parameters, and outside of a transaction it does nothing: so set_context(), and no autocommit.
    """
    if connection.autocommit:
        raise ValueError("with autocommit each statement is a transaction of its own, and forgets who it was")
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT audit_log.set_context(%s, %s)", (
            None if user_id is None else str(user_id), json.dumps(context) if context else None))
        yield cursor


def history(connection, table, record_id):
    """The changes of one record, oldest first."""
    with connection, connection.cursor() as cursor:
        cursor.execute("""SELECT user_id, action_type, changes, context FROM audit_log.audit_logs
                           WHERE relation = %s::regclass AND record_id = %s ORDER BY id""", (table, str(record_id)))
        return cursor.fetchall()


if __name__ == "__main__":
    connection = psycopg2.connect("")
    with transaction(connection, 1) as cursor:
        cursor.execute("CREATE TABLE kettle (id int PRIMARY KEY, name text)")
        cursor.execute("SELECT audit_log.enable('kettle')")
    with transaction(connection, 42, reason="it's \"new\"") as cursor:
        cursor.execute("INSERT INTO kettle VALUES (%s, %s)", (1, "Kettle"))
    with transaction(connection, 43) as cursor:
        cursor.executemany("UPDATE kettle SET name = %s WHERE id = 1", [("Old Kettle",), ("Kettle No. 1",)])
    try:
        with transaction(connection, 44) as cursor:
            cursor.execute("UPDATE kettle SET name = 'not to be'")
            raise KeyError("something else went wrong")
    except KeyError:
        pass
    with connection, connection.cursor() as cursor:
        cursor.execute("UPDATE kettle SET name = 'by nobody'")
    for entry in history(connection, "kettle", 1):
        print(*entry)
