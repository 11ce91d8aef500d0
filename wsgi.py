"""The WSGI application that gunicorn serves: ``gunicorn wsgi:app``."""

from __future__ import annotations

import sys

from app import create_app, logs
from app.config import Settings, SettingsError

try:
    settings = Settings.from_env()
    logs.configure(settings.log_level)
    app = create_app(settings)
except SettingsError as error:
    print(error, file=sys.stderr)
    # gunicorn's own code for an application that does not boot: the master ends too.
    sys.exit(4)
