"""Whether an event is one that a trigger node waits for: its filters against the event's payload.

A filter that is not set matches all events. All that are set have to match. Which fields of the
payload each of them looks at is the table ``FILTERS``, which docs/triggers.rst shows to users;
where it names several, one that matches is enough. Case never matters, but in ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import getaddresses
from typing import Any, Final

_SHOWN = 200  # characters of a filter in a reason
_WIDEST = 1_000  # values that a filter looks at, of a payload with long lists
_MAX_HEADER = 100_000  # characters of a text with several addresses

RAW: Final = ""  # the path of the whole payload, as text
# What stands in headers, and is put into the payload for the run: no part of what came.
ADDED: Final = ("githubEvent", "githubDelivery")


@dataclass(frozen=True, slots=True)
class Filter:
    """One field of a trigger's config: how it is compared, and with which paths of the payload.

    ``otherwise`` are looked at where the payload has none of these; ``default`` is what it means
    that has none at all.
    """

    field: str
    how: str  # contains, equals, is or command
    paths: tuple[str, ...]
    default: str | None = None
    otherwise: tuple[str, ...] = ()


def _contains(wanted: str, value: str) -> bool:
    return wanted.casefold() in value.casefold()


def _equals(wanted: str, value: str) -> bool:
    return wanted.casefold() == value.casefold()


def _is(wanted: str, value: str) -> bool:
    return wanted == value


def _command(wanted: str, value: str) -> bool:
    """Whether a message begins with a command; Telegram's ``/start@bot`` is ``/start``."""
    command, text = wanted.casefold(), value.casefold().lstrip()
    if not text.startswith(command):
        return False
    behind = text[len(command) : len(command) + 1]
    return not behind or behind.isspace() or behind == "@"


def _local_part(wanted: str, value: str) -> bool:
    """Whether one of the addresses, such as ``Ada <ada@example.org>``, is of that mailbox."""
    return any(_equals(wanted, one.partition("@")[0]) for one in _addresses(value, wanted))


def _address(wanted: str, value: str) -> bool:
    address = _bare(wanted)
    return any(_equals(address, one) for one in _addresses(value, address))


def _addresses(value: str, wanted: str) -> list[str]:
    """The addresses of a text, as the header of an email holds several of them; none where
    ``wanted`` is nowhere in it."""
    if not _contains(wanted, value):  # to read such a text takes long
        return []
    try:
        found = [address for _, address in getaddresses([value[:_MAX_HEADER]]) if address]
    except (IndexError, RecursionError, ValueError):  # comments in comments, and the like
        found = []
    return found or [_bare(value)]


def _bare(address: str) -> str:
    inside = address.rpartition("<")[2] if "<" in address else address
    return inside.partition(">")[0].strip()


COMPARE: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "contains": _contains,
    "equals": _equals,
    "is": _is,
    "command": _command,
    "local_part": _local_part,
    "address": _address,
}

_EVENT_TYPE = ("eventType", "event", "type")
_RECIPIENTS = ("to", "recipient", "recipients", "cc", "envelope.to")
_TEXT = ("text", "message", "content", "body")
_GITHUB_BRANCHES = (
    "ref",
    "pull_request.head.ref",
    "pull_request.base.ref",
    "base_ref",
    "branch",
    "workflow_run.head_branch",
    "workflow_job.head_branch",
    "check_run.check_suite.head_branch",
    "check_run.pull_requests.head.ref",
    "check_run.pull_requests.base.ref",
    "check_suite.head_branch",
    "branches.name",
    "deployment.ref",
    "release.target_commitish",
    "merge_group.head_ref",
    "merge_group.base_ref",
)

FILTERS: Final[Mapping[str, tuple[Filter, ...]]] = {
    "thread_event": (
        Filter("threadCommand", "command", ("command", *_TEXT, "message.content", "message.text")),
    ),
    "email": (
        Filter("emailLocalPart", "local_part", (*_RECIPIENTS, "localPart")),
        Filter("emailAddress", "address", _RECIPIENTS),
        Filter("fromContains", "contains", ("from", "sender", "envelope.from")),
        Filter("subjectContains", "contains", ("subject",)),
        Filter("bodyContains", "contains", ("body", "text", "html")),
    ),
    "telegram": (
        Filter("telegramCommand", "command", ("command", "text", "message.text", "message")),
        Filter(
            "telegramFromContains",
            "contains",
            ("from", "message.from", "username", "fromUsername"),
        ),
        Filter("telegramChatId", "is", ("chatId", "chat.id", "message.chat.id")),
        Filter("telegramMessageContains", "contains", ("text", "message.text", "message")),
    ),
    "github": (
        Filter("githubEventType", "equals", ("githubEvent",)),
        Filter("githubRepositoryContains", "contains", ("repository.full_name", "repository.name")),
        Filter("githubBranchContains", "contains", _GITHUB_BRANCHES),
        Filter("githubActorContains", "contains", ("sender.login", "pusher.name")),
        Filter("githubActionContains", "contains", ("action",)),
        Filter("githubPayloadContains", "contains", (RAW,)),
    ),
    "project_ticket": (
        Filter("ticketEventType", "equals", _EVENT_TYPE),
        Filter("ticketProjectId", "is", ("projectId", "project.id", "ticket.projectId")),
        Filter("ticketProjectName", "equals", ("projectName", "project.name")),
        Filter(
            "ticketFromStatus", "equals", ("fromStatus", "previousStatus", "changes.status.from")
        ),
        Filter(
            "ticketToStatus",
            "equals",
            ("toStatus", "changes.status.to"),
            otherwise=("status", "ticket.status"),
        ),
        Filter(
            "ticketCommentContains",
            "contains",
            ("comment", "comment.body", "comment.text", "comment.content"),
        ),
    ),
    "resource": (
        Filter("resourceEventType", "equals", _EVENT_TYPE),
        Filter("resourceId", "is", ("resourceId", "resource.id")),
        Filter("resourceName", "equals", ("resourceName", "resource.name")),
        Filter("resourceKind", "equals", ("resourceKind", "kind", "resource.kind")),
    ),
    "database_entry": (
        Filter("databaseEventType", "equals", _EVENT_TYPE, default="document_created"),
        Filter("databaseId", "is", ("databaseId", "database.id")),
        Filter("databaseName", "equals", ("databaseName", "database.name")),
        Filter("databaseCollection", "equals", ("collection", "collectionName", "collection.name")),
    ),
    "auth": (
        Filter("authEventType", "equals", _EVENT_TYPE, default="user_registered"),
        Filter("authResourceId", "is", ("authResourceId", "resourceId", "resource.id")),
        Filter("authResourceName", "equals", ("authResourceName", "resourceName", "resource.name")),
        Filter("authEmailContains", "contains", ("email", "user.email")),
    ),
}


def mismatch(
    trigger_type: str, config: Mapping[str, Any], payload: Mapping[str, Any], raw: str
) -> str | None:
    """Why an event is not what a trigger waits for; None where it is.

    ``raw`` is the payload as text, as it came.
    """
    for one in FILTERS.get(trigger_type, ()):
        wanted = _wanted(config.get(one.field))
        if not wanted:
            continue
        if one.paths == (RAW,):
            found = [raw, *_unescaped(payload, raw)]
        else:
            found = list(_values(payload, one.paths)) or list(_values(payload, one.otherwise))
        if not found and one.default is not None:
            found = [one.default]
        compare = COMPARE[one.how]
        if any(compare(text, value) for text in wanted for value in found):
            continue
        shown = _short(" or ".join(wanted))
        if not found:
            return f"{one.field} is '{shown}', but the payload has no {one.paths[0]}"
        if one.paths == (RAW,):
            return f"{one.field} '{shown}' is not in the payload"
        return f"{one.field} '{shown}' does not match '{_short(found[0])}'"
    return None


def _wanted(value: Any) -> list[str]:
    """The texts of a filter, one of which is to match; none where it is not set."""
    several = value if isinstance(value, list) else [value]
    texts = [_text(one) for one in several]
    return [text.strip() for text in texts if text is not None and text.strip()]


def _unescaped(payload: Mapping[str, Any], raw: str) -> Iterator[str]:
    """The texts of a payload that its text as it came may show in another way."""
    left = [value for name, value in payload.items() if name not in ADDED]
    while "\\" in raw and left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            left.extend(value)
        elif isinstance(value, Mapping):
            left.extend(value.values())


def _values(payload: Mapping[str, Any], paths: tuple[str, ...]) -> Iterator[str]:
    """The texts at these paths, at most _WIDEST of them."""
    left = _WIDEST
    for path in paths:
        for value in _at(payload, path.split(".")):
            if left <= 0:
                return
            left -= 1
            yield value


def _at(value: Any, keys: list[str]) -> Iterator[str]:
    """The texts at a path; of a list those of its items, of a person names and addresses."""
    if isinstance(value, list):
        for item in value[:_WIDEST]:
            yield from _at(item, keys)
    elif keys:
        if isinstance(value, Mapping) and keys[0] in value:
            yield from _at(value[keys[0]], keys[1:])
    elif isinstance(value, Mapping):
        for name in ("email", "address", "username", "name", "id"):
            text = _text(value.get(name))
            if text is not None:
                yield text
    else:
        text = _text(value)
        if text is not None:
            yield text


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
