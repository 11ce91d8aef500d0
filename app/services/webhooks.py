"""Webhooks: who may send events without an API key, by a secret that both sides know."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from app.db import Database
from app.domain.errors import Conflict, Invalid, NotFound, Unauthorized
from app.ids import new_id
from app.services.keys import BY_COMMAND
from app.store import webhooks
from app.store.webhooks import NewWebhook, Secret, Webhook

PREFIX = "whs_"
MAX_TRIED = 100  # secrets, where a delivery does not name its webhook
MAX_HASHED = 64_000_000  # bytes that are hashed for one delivery at the most

_SECRET = re.compile(r"[!-~]{16,200}")
_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
_NOTHING = "-"  # compared with where there is no webhook to compare with


@dataclass(frozen=True, slots=True)
class Proof:
    """How a delivery proves where it is from: a signature of its body, or the secret itself."""

    signature: str | None  # sha256=...
    secret: str | None
    webhook_id: str | None  # which webhook it says that it is for


def create(
    db: Database, *, name: str, user_id: str, organization_id: str, secret: str | None = None
) -> tuple[Webhook, str]:
    """A new webhook and its secret, which is made here unless it is given.

    Raises Invalid where the secret is too weak or too odd, Conflict where it is in use.
    """
    if secret is None:
        secret = PREFIX + secrets.token_urlsafe(32)
    elif not _SECRET.fullmatch(secret):
        message = "must be 16 to 200 visible ASCII characters"
        raise Invalid(f"secret {message}", details={"secret": [message]})
    new = NewWebhook(
        id=new_id("whk"),
        organization_id=organization_id,
        user_id=user_id,
        name=name,
        secret=secret,
        sha256=_sha256(secret),
    )
    with db.connect() as connection:
        webhook = webhooks.create(connection, new, by=BY_COMMAND)
    if webhook is None:
        raise Conflict("this secret belongs to another webhook", code="secret_in_use")
    return webhook, secret


def every(db: Database, organization_id: str | None = None) -> list[Webhook]:
    """All webhooks (of an organization), the oldest first, revoked ones as well."""
    return db.read(lambda connection: webhooks.every(connection, organization_id))


def revoke(db: Database, webhook_id: str) -> Webhook:
    """Revoke a webhook from now on; one that is revoked stays as it is. Raises NotFound."""
    with db.connect() as connection:
        webhook = webhooks.revoke(connection, webhook_id, by=BY_COMMAND)
    if webhook is None:
        raise NotFound(f"there is no webhook with the id {webhook_id}", code="webhook_not_found")
    return webhook


def authenticate(db: Database, body: bytes, proof: Proof) -> Secret:
    """Whose webhook a delivery is for. Raises Unauthorized.

    A signature counts alone, even where there is a secret too. It is compared in constant time, and
    so is a secret for a webhook that is named; one that is not is looked up by its hash. Without
    the name of the webhook those secrets are tried that were used last: the message tells where
    there are more.
    """
    advice = ""
    found = None
    if proof.signature is not None:
        found, all_tried = _by_signature(db, body, proof.signature, proof.webhook_id)
        if not all_tried:
            advice = "; there are more secrets than are tried: name the webhook, with ?webhook=ID"
    elif proof.secret is not None:
        found = _by_secret(db, proof.secret, proof.webhook_id)
    if found is not None:
        return found
    if proof.signature is None and proof.secret is None:
        message = "sign the delivery (x-hub-signature-256), or send the webhook's secret"
        raise Unauthorized(message, code="unsigned")
    message = f"this delivery is not signed with a valid secret{advice}"
    raise Unauthorized(message, code="invalid_signature")


def _by_signature(
    db: Database, body: bytes, signature: str, webhook_id: str | None
) -> tuple[Secret | None, bool]:
    """Whose signature it is, and whether all that it may be of were tried."""
    form = _SIGNATURE.fullmatch(signature.strip())
    if form is None:
        return None, True
    given = form[1].lower()
    tried: list[Secret]
    all_tried = True
    if webhook_id is not None:
        named = db.read(lambda connection: webhooks.by_id(connection, webhook_id))
        tried = [named or Secret("", "", _NOTHING)]
    else:
        most = min(MAX_TRIED, max(1, MAX_HASHED // max(1, len(body))))
        active = db.read(lambda connection: webhooks.active(connection, limit=most + 1))
        tried, all_tried = active[:most], len(active) <= most
    found = None
    for one in tried:
        expected = hmac.new(one.secret.encode(), body, hashlib.sha256).hexdigest()
        if hmac.compare_digest(expected, given) and one.webhook_id:
            found = one
    if found is not None and webhook_id is None:
        with db.connect() as connection:
            webhooks.used(connection, found.webhook_id)
    return found, all_tried


def _by_secret(db: Database, secret: str, webhook_id: str | None) -> Secret | None:
    if not _SECRET.fullmatch(secret):
        return None
    hashed = _sha256(secret)
    found = db.read(lambda connection: webhooks.by_sha256(connection, hashed))
    if found is None or webhook_id not in (None, found.webhook_id):
        return None
    return found if hmac.compare_digest(found.secret.encode(), secret.encode()) else None


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
