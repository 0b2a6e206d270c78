"""
The least that the example needs. The database is named by the environment, as psql's is. In this folder:

    export PYTHONPATH=. DJANGO_SETTINGS_MODULE=settings
    python3 -m django migrate && python3 -m django test world
"""
import os

SECRET_KEY = "only an example"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
ROOT_URLCONF = "world.urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "world"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "world.audit.AuditMiddleware",  # behind what sets request.user
]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": os.environ.get("PGDATABASE", "world"), "HOST": os.environ.get("PGHOST", ""),
    "PORT": os.environ.get("PGPORT", ""), "USER": os.environ.get("PGUSER", "")}}
