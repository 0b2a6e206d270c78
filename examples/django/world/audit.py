"""Who makes the changes: the user of the request, told with each statement that writes."""
import json
import re
import uuid
from contextlib import ExitStack, contextmanager

from django.db import connections

TELL = "SELECT set_config('audit_log.user_id', %s, true), set_config('audit_log.context', %s, true); "
# the ORM's reads, and commands of transactions, are left as they are
LEFT_ALONE = re.compile(r"\s*(SELECT|SAVEPOINT|RELEASE|ROLLBACK|BEGIN|COMMIT|SET|SHOW|DECLARE|FETCH|CLOSE)\b", re.I)


class Wrapper:
    """
    Puts the settings before the statement: both are one transaction also where Django commits each statement by itself,
    and nothing is left for whom the connection goes to next. psycopg2 takes several commands at once, and gives the
    result of the last.
    """

    def __init__(self, user_id, context):
        self.params = ["" if user_id is None else str(user_id), json.dumps(context) if context else ""]

    def __call__(self, execute, sql, params, many, context):
        if not LEFT_ALONE.match(sql):
            if many:
                params = [[*self.params, *p] for p in params]
            elif params is None:
                params, sql = self.params, sql.replace("%", "%%")
            else:
                params = [*self.params, *params]
            sql = TELL + sql
        return execute(sql, params, many, context)


@contextmanager
def who(user_id, **context):
    """Whose changes these are, and why: with who(user.pk, reason="import"): … For commands and tasks, too."""
    with ExitStack() as stack:
        for connection in connections.all():
            if connection.vendor == "postgresql":
                stack.enter_context(connection.execute_wrapper(Wrapper(user_id, context)))
        yield


class AuditMiddleware:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        user = getattr(request, "user", None)
        with who(user.pk if user and user.is_authenticated else None,
                 request=str(uuid.uuid4()), method=request.method, path=request.path):
            return self.get_response(request)


def new_transaction(using="default"):
    """Begins a further row of audit_log.transaction: for tests, which run inside one outer transaction."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT audit_log.new_transaction()")
