"""Every way a request or a node can be refused, as exceptions that carry their own message.

``app/api/errors.py`` maps the classes to HTTP status codes in one table; nothing else does.
"""

from __future__ import annotations

from typing import Any


class MetronomeError(Exception):
    """Something was refused; ``message`` tells a person why, ``code`` tells a program."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None, details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.details = details


class NotFound(MetronomeError):
    """The thing does not exist, or belongs to another organization: both look the same."""

    code = "not_found"


class Invalid(MetronomeError):
    """The request is well-formed, but a field's value is not acceptable.

    ``details`` maps each field's path to its messages: ``{"definition.nodes.2.kind": ["..."]}``.
    """

    code = "invalid"


class Conflict(MetronomeError):
    """The thing is in a state in which the request makes no sense."""

    code = "conflict"


class Refused(MetronomeError):
    """The request would change what can't be changed as long as it is in use."""

    code = "refused"


class PreconditionFailed(MetronomeError):
    """The thing has changed since the caller last read it."""

    code = "precondition_failed"


class Unauthorized(MetronomeError):
    """There is no valid API key."""

    code = "unauthorized"


class KeyUnproven(Unauthorized):
    """The API key, which was valid a while ago, is not what it was then: look it up again."""

    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("this API key is not valid")


class Forbidden(MetronomeError):
    """The API key is valid, but does not stand for what the request speaks of."""

    code = "forbidden"


class Unavailable(MetronomeError):
    """Something that this process needs is away just now; the request may be sent again."""

    code = "unavailable"


class ExpressionError(MetronomeError):
    """An expression or a template does not parse, is not allowed, or failed on its values."""

    code = "expression_error"


class ValueRefused(MetronomeError):
    """A JSON value that can't be stored: NUL, a lone surrogate, NaN, too big, too deep."""

    code = "value_refused"
