"""What a connector is sent: one POST of JSON, signed by the rules of Standard Webhooks.

The deployer names the connectors, so their addresses may be private. Redirects are not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException

from standardwebhooks.webhooks import Webhook
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from app.domain.connectors import Connector
from app.nodes.message import TooBig, read_body
from app.nodes.wire import Call, Cut, described, open_connection

_ANYWHERE = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; ``body`` is decompressed, ``content_type`` in lower case."""

    status: int
    content_type: str
    body: bytes


class Unanswered(Exception):
    """There was no whole answer; the message says why, without the request's content."""


def post(
    call: Call,
    connector: Connector,
    *,
    message_id: str,
    moment: datetime,
    body: bytes,
    most: int,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send ``body``, JSON in UTF-8, and read an answer of at most ``most`` bytes.

    ``message_id`` and ``moment`` (of the database) are signed along with it. Raises Cut as soon as
    the call is cut, TooBig, or Unanswered where the connection failed.
    """
    url = parse_url(connector.url)
    sent = {
        "user-agent": "Metronome",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        **(headers or {}),
        **signature(connector.secret, message_id, moment, body),
    }
    host = (url.host or "").strip("[]")
    connection = open_connection(call, str(url.scheme), host, url.port, _ANYWHERE)
    try:
        connection.connect()
        call.check()  # a socket that was shut before its TLS handshake passes for connected
        call.sent = True
        connection.request("POST", url.request_uri, body=body, headers=sent, preload_content=False)
        response = connection.getresponse()
        content = read_body(response, most)
        call.check()  # what ended because the socket was shut may look like a short, whole answer
    except TooBig:
        raise
    except (OSError, HTTPException, HTTPError, ValueError) as error:
        if call.cut_by is not None:  # the socket was shut under the library
            raise Cut from None
        raise Unanswered(described(error)) from error
    finally:
        connection.close()
    kind = response.headers.get("content-type", "").partition(";")[0]
    return Answer(response.status, kind.strip().lower(), content)


def signature(secret: str, message_id: str, moment: datetime, body: bytes) -> dict[str, str]:
    """The three headers by which the receiver knows who sent ``body``, and when."""
    at = moment.astimezone(UTC).replace(microsecond=0)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
    }
