"""The HTTP API: one file per noun, and one for each thing that all of them share.

Top-down: ``blueprint`` (what an endpoint is), ``auth`` (who asks), ``arguments`` (what comes in),
``dump`` (what goes out), ``errors`` (every refusal), ``requests`` (ids and logs), ``unread`` (what
nobody wanted), ``docs``.
"""

from __future__ import annotations

from flask import Flask

from app.api import auth, context, converters, docs, errors, requests, unread
from app.api.approvals import approvals
from app.api.audit import audit
from app.api.callbacks import callbacks
from app.api.github import github
from app.api.health import health
from app.api.metronomes import metronomes
from app.api.owners import owners
from app.api.publishing import publishing
from app.api.runs import runs
from app.api.schedules import schedules
from app.api.test_runs import test_runs
from app.api.timeline import timeline
from app.api.transitions import transitions
from app.api.trigger_events import trigger_events
from app.api.triggers import triggers
from app.api.validation import validation
from app.api.versions import versions
from app.config import Settings, SettingsError


def build(settings: Settings) -> Flask:
    """The application; see ``app.create_app``."""
    if settings.database_url is None:
        raise SettingsError(["DATABASE_URL is not set: expected the URL of a PostgreSQL"])
    app = Flask("app", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    # A path with a slash too many is unknown, not a redirect that drops the body.
    app.url_map.merge_slashes = False
    converters.install(app)
    context.install(app, settings)
    requests.install(app)
    auth.install(app)
    errors.install(app)
    unread.install(app)
    api = docs.install(app)
    for blueprint in (
        audit,
        runs,
        test_runs,
        timeline,
        transitions,
        approvals,
        callbacks,
        metronomes,
        validation,
        versions,
        publishing,
        owners,
        triggers,
        trigger_events,
        schedules,
        github,
        health,
    ):
        api.register_blueprint(blueprint)
    return app
