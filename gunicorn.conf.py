"""What ``gunicorn wsgi:app`` reads by itself where it is started in the checkout."""

from __future__ import annotations

from app.supervisor.gunicorn_conf import limit_request_line as limit_request_line
from app.supervisor.gunicorn_conf import logger_class as logger_class
from app.supervisor.gunicorn_conf import pre_request as pre_request
