"""A web application as small as can be (WSGI): PUT /7 with a JSON object sets attributes of element 7."""
import json
import uuid

import sqlalchemy as sa
from sqlalchemy import orm

from audit import current_context, current_user, tell_who
from models import WorldElement

engine = tell_who(sa.create_engine("postgresql+psycopg2://", future=True))
Session = orm.sessionmaker(engine, future=True)


def application(environ, start_response):
    # the server has authenticated whoever asks
    user = current_user.set(environ.get("REMOTE_USER"))
    context = current_context.set({"request": str(uuid.uuid4()), "path": environ["PATH_INFO"]})
    try:
        with Session.begin() as session:
            element = session.get(WorldElement, int(environ["PATH_INFO"].strip("/")))
            element.attributes = {**element.attributes, **json.load(environ["wsgi.input"])}
        start_response("204 No Content", [])
        return []
    finally:
        current_user.reset(user)
        current_context.reset(context)
