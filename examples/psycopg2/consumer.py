"""
A consumer of the outbox that hands each committed change on, in order, and waits for the next:

    consumer.py search        (the connection from PGHOST, PGDATABASE …)

It begins with audit_log.create_consumer('search'), and wakes up at once with audit_log.notify on, else each minute.
"""
import select
import sys

import psycopg2


def handle(change):
    """Put your own here. After a crash the same changes come again: know them by their id."""
    print(change["id"], change["action_type"], change["table_name"], change["record_id"], flush=True)


def batch(cursor, consumer, rows=1000):
    """What is new, handled and acknowledged; how much it was."""
    cursor.execute("SELECT * FROM audit_log.poll(%s, %s)", (consumer, rows))
    names = [column.name for column in cursor.description]
    changes = [dict(zip(names, values)) for values in cursor]
    for change in changes:
        handle(change)
    if changes:
        # not what another worker has been given meanwhile
        cursor.execute("SELECT audit_log.ack(%s, %s)", (consumer, changes[-1]["id"]))
    return len(changes)


def main(consumer):
    connection = psycopg2.connect("")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("LISTEN audit_log")      # before the first poll: nothing is announced in between unheard
        while True:
            while batch(cursor, consumer):
                pass
            connection.poll()
            if not connection.notifies:
                select.select([connection], [], [], 60)
                connection.poll()
            connection.notifies.clear()


if __name__ == "__main__":
    main(sys.argv[1])
