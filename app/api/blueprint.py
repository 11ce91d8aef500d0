"""What an endpoint is: one decorator that routes it, checks what comes in and documents it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import flask_smorest  # type: ignore[import-untyped]
import marshmallow as ma
from flask import Response
from werkzeug.exceptions import HTTPException

from app.api.arguments import Arguments
from app.api.context import prove
from app.domain.errors import KeyUnproven, MetronomeError
from app.domain.roles import Permission

View = TypeVar("View", bound=Callable[..., Response])

_PARAMETERS = {
    "metronomeId": "metronome_id",
    "runId": "run_id",
    "stepId": "step_id",
    "versionId": "version_id",
}
_ALWAYS = (401, 414, 431, 500, 503)
_API_KEY = "apiKey"


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """A noun of the API.

    ``security`` names the scheme of the documentation by which its callers are known; where it is
    no API key, the blueprint admits them itself, and does not tell unknown things from others'.
    """

    ARGUMENTS_PARSER = Arguments()

    def __init__(
        self,
        name: str,
        *,
        prefix: str,
        description: str,
        public: bool = False,
        security: str = _API_KEY,
    ) -> None:
        super().__init__(name, __name__, url_prefix=prefix, description=description)
        self._public = public
        self._security = security
        self._needs: dict[str, Permission] = {}
        self._proving: set[str] = set()
        self.url_value_preprocessor(_rename)

    def needs(self, endpoint: str) -> Permission | None:
        """What the role of a caller of ``endpoint`` must allow; None where callers have no role."""
        return self._needs.get(endpoint.rpartition(".")[2])

    def proves_key(self, endpoint: str) -> bool:
        """Whether all that ``endpoint`` does proves the key, which may have been revoked."""
        return endpoint.rpartition(".")[2] in self._proving

    def operation(
        self,
        method: str,
        path: str,
        answer: type[ma.Schema],
        *,
        needs: Permission | None = None,
        status: int = 200,
        told: str | None = None,
        body: type[ma.Schema] | None = None,
        query: type[ma.Schema] | None = None,
        refuses: Iterable[int] = (),
        takes: Iterable[Mapping[str, Any]] = (),
        headers: Mapping[str, Any] | None = None,
        also: Mapping[int, str] | None = None,
        bare: Mapping[int, str] | None = None,
        example: Any = None,
        proves_key: bool = False,
    ) -> Callable[[View], View]:
        """Serve ``method`` on ``path`` with a view, whose docstring becomes the documentation.

        The view gets the loaded ``body`` or ``query`` first, then the path's parameters by name.
        ``answer`` only documents: views answer through ``dump``. ``told`` describes the answer.
        ``needs`` is what the role of the caller's key must allow; GET needs to read, and all else
        has to say it.
        ``takes`` documents the request headers that the view reads, as OpenAPI parameters.
        ``refuses`` lists the errors beyond those that follow from the rest; ``also`` describes
        other successes, with the same body, and ``bare`` those without one; ``example`` is of the
        body that is sent. ``proves_key`` says that all that the view does for an actor are messages
        that prove its key (``store/proof.py``): so it need not be looked up before.
        """
        codes = {*refuses, *(() if self._public else _ALWAYS)}
        needs_key = not self._public and self._security == _API_KEY
        if needs_key:
            codes.add(403)
            if needs is None and method != "GET":
                raise TypeError(f"{method} {path} does not say what it needs")
            needs = needs or Permission.READ
        if body is not None:
            codes |= {400, 413, 415, 422}
        if query is not None:
            codes.add(422)
        if needs_key and "<" in f"{self.url_prefix}{path}":
            codes.add(404)

        def decorate(view: View) -> View:
            if needs is not None:
                self._needs[view.__name__] = needs
            if proves_key:
                self._proving.add(view.__name__)
            described: Any = self.doc(
                operationId=_camel(view.__name__),
                # X-Request-Id comes with every answer; the components name it once.
                **({"security": []} if self._public else {}),
                **({} if self._public or needs_key else {"security": [{self._security: []}]}),
                **({} if needs is None else {"x-permission": needs.value}),
            )(view)
            all_headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
            all_headers |= headers or {}
            described = self.response(status, answer, description=told, headers=all_headers)(
                described
            )
            for code, description in (also or {}).items():
                described = self.alt_response(
                    code, schema=answer, description=description, headers=all_headers, success=True
                )(described)
            for code, description in (bare or {}).items():
                described = self.alt_response(
                    code, description=description, headers=all_headers, success=True
                )(described)
            for code in sorted(codes):
                described = self.alt_response(code, response=HTTPStatus(code).name)(described)
            if query is not None:
                described = self.arguments(query, location="query")(described)
            if body is not None:
                required = any(field.required for field in body().fields.values())
                described = self.arguments(body, required=required, example=example)(described)
            # By hand: flask-smorest would have the headers loaded by a schema, or lose the query.
            documented = described._apidoc.setdefault("arguments", {})
            documented.setdefault("parameters", []).extend(dict(one) for one in takes)
            self.route(path, methods=[method])(_served(view, described, body, query))
            return view

        return decorate


def _served(
    view: View,
    described: Any,
    body: type[ma.Schema] | None,
    query: type[ma.Schema] | None,
) -> Callable[..., Response]:
    """``view`` with its arguments loaded, and ``described`` for the documentation only.

    The layers with which flask-smorest describes a view would each be called with every request.
    """
    schemas = [
        (location, schema())
        for location, schema in (("json", body), ("query", query))
        if schema is not None
    ]
    parse = Blueprint.ARGUMENTS_PARSER.parse

    def call(values: dict[str, Any]) -> Response:
        loaded = [parse(schema, location=location) for location, schema in schemas]
        return view(*loaded, **values)

    @functools.wraps(described)
    def served(**values: Any) -> Response:
        try:
            return call(values)
        except KeyUnproven:
            prove()
            return call(values)
        except (MetronomeError, HTTPException):
            prove()  # who has no valid key is told nothing else
            raise

    return served


def _rename(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Give the views Python's names for what the paths call by the contract's."""
    for given, ours in _PARAMETERS.items():
        if values and given in values:
            values[ours] = values.pop(given)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
