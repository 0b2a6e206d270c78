"""Who makes the changes: one listener on the engine, for the ORM, bulk statements and raw SQL alike."""
import json
from contextvars import ContextVar

from sqlalchemy import event

# of the request that is being served: set it where the request is authenticated
current_user = ContextVar("current_user", default=None)
current_context = ContextVar("current_context", default=None)


def tell_who(engine):
    @event.listens_for(engine, "begin")
    def begin(connection):
        # ends with the transaction: nothing is left for whom the connection goes to next
        if current_user.get() is not None or current_context.get() is not None:
            user, context = current_user.get(), current_context.get()
            connection.exec_driver_sql("SELECT audit_log.set_context(%s, %s::jsonb)", (
                None if user is None else str(user), None if context is None else json.dumps(context)))

    return engine
