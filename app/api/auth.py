"""Who asks: every request below /v1 needs a bearer key, before anything else is looked at.

But for callbacks, which have a token of their own, and webhooks, which are signed.
"""

from __future__ import annotations

import re

from flask import Flask, current_app, g, request

from app.api.blueprint import Blueprint
from app.api.context import admit
from app.domain.errors import Forbidden, Unauthorized
from app.domain.models import Actor
from app.domain.roles import PERMISSIONS, TOLD
from app.services import metronomes, runs, versions

ORGANIZATION_HEADER = "X-Computer-Agents-Organization"

# All ids that were ever given out look so; others can't be looked up (NUL) or need not.
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_OWN_TOKENS = frozenset({"callbacks", "github"})  # blueprints that admit their callers themselves


def install(app: Flask) -> None:
    """Have ``app`` admit only those with a key to /v1; unknown paths there are no exception."""
    app.before_request(_admit)


def bearer() -> str | None:
    """What the current request sends as the header ``Authorization: Bearer``; None without one."""
    # By hand: werkzeug takes a key with an equals sign in it for a list of parameters.
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def is_id(text: str) -> bool:
    """Whether ``text`` could be an id that was ever given out."""
    return _ID.fullmatch(text) is not None


def _admit() -> None:
    if request.path != "/v1" and not request.path.startswith("/v1/"):
        return
    if request.blueprint in _OWN_TOKENS:
        return
    secret = bearer()
    if secret is None:
        raise Unauthorized("send your API key as the header `Authorization: Bearer KEY`")
    admit(secret, _check, remembered=_proves_key())


def _check() -> None:
    _check_organization()
    _check_role(g.actor)
    _check_ids()


def _proves_key() -> bool:
    blueprint = current_app.blueprints.get(request.blueprint or "")
    return isinstance(blueprint, Blueprint) and blueprint.proves_key(request.endpoint or "")


def _check_organization() -> None:
    organization = request.headers.get(ORGANIZATION_HEADER, "").strip()
    if organization and organization != g.actor.organization_id:
        raise Forbidden(
            f"this API key does not belong to the organization named in {ORGANIZATION_HEADER}",
            code="wrong_organization",
        )


def _check_role(actor: Actor) -> None:
    """A role that is too small is told before anything is looked up: it learns nothing."""
    blueprint = current_app.blueprints.get(request.blueprint or "")
    if not isinstance(blueprint, Blueprint) or request.method == "OPTIONS":
        return
    needed = blueprint.needs(request.endpoint or "")
    if needed is None or needed in PERMISSIONS.get(actor.role, frozenset()):
        return
    raise Forbidden(
        f"this API key has the role {actor.role}, which may not {TOLD[needed]}: it lacks the"
        f" permission `{needed.value}`",
        code="role_forbids",
        details={"role": actor.role, "needs": needed.value},
    )


def _check_ids() -> None:
    """An id that can't exist is answered as one that doesn't."""
    args = request.view_args or {}
    if not all(is_id(str(value)) for value in args.values()):
        if "version_id" in args:
            raise versions.not_found()
        raise runs.not_found() if "run_id" in args else metronomes.not_found()
