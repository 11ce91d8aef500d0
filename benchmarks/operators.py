"""People who ask for things at random, several at once, and remember what they were answered.

Each has an API key of his own and asks for one thing at a time. So what the audit says of a key
belongs to the last request that was sent with it before.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from app.domain.lifecycle import TERMINAL, sql_list
from app.services.keys import authenticate, create_key
from benchmarks.reader import Reader
from benchmarks.server import Bench

STOPS = ("cancel", "pause")
TIMEOUT = 30.0  # seconds for an answer
_FAR = 2.5  # seconds: what has ended is of interest for so long
_AWAY = 0.3  # seconds to wait where the database is away
_TOGETHER = 0.15  # of the requests that are an appointment of several people


class Target(NamedTuple):
    """A run, as it stood a moment ago."""

    id: str
    metronome_id: str
    status: str
    in_doubt: bool
    root: str
    nested: bool


@dataclass(frozen=True, slots=True)
class Below:
    """A run of the tree, as it was right behind the answer to a cancel or pause.

    ``revived`` says that somebody had resumed or retried it by then.
    """

    status: str
    revived: bool
    started: frozenset[int]  # seqs of its steps
    in_flight: tuple[tuple[int, str], ...]  # seq and node of the steps under a lease


@dataclass(slots=True)
class Deed:
    """One request and what came of it; times are in ns since 1970.

    ``status`` None means that there was no answer. ``moved`` says whether the request changed the
    run; None where that can't be told from the answer.
    """

    key: str  # the id of the API key
    action: str
    run_id: str
    asked: Mapping[str, Any]
    sent: int
    answered: int = 0
    status: int | None = None
    code: str = ""  # an outcome, or what an error is called
    run_status: str | None = None
    named: frozenset[tuple[str, str]] = frozenset()  # run and node of what is in flight
    unnamed: int = 0
    moved: bool | None = None
    tree: dict[str, Below] = field(default_factory=dict)


_PICTURE = f"""
SELECT id, metronome_id, status, in_doubt, coalesce(root_run_id, id), parent_run_id IS NOT NULL
FROM runs WHERE status NOT IN ({sql_list(TERMINAL)})
   OR completed_at > clock_timestamp() - {_FAR} * interval '1 second'
"""

# Runs that began behind the stop do so because somebody has revived the one above; if nobody has,
# the ledger sees it.
_TREE = """
WITH RECURSIVE stop AS (
    SELECT created_at FROM audit_events
    WHERE run_id = %(run)s AND actor_key_id = %(key)s AND payload -> 'cascadedFrom' IS NULL
    ORDER BY created_at DESC LIMIT 1
),
tree (id) AS (
    SELECT %(run)s
    UNION ALL
    SELECT c.id FROM tree t JOIN runs c ON c.parent_run_id = t.id
)
SELECT r.id, r.status,
    EXISTS (
        SELECT FROM audit_events a WHERE a.run_id = r.id
          AND a.action IN ('run.resumed', 'run.retried')
          AND a.created_at > (SELECT created_at FROM stop)
    ),
    ARRAY(SELECT s.seq FROM steps s WHERE s.run_id = r.id AND s.started_at IS NOT NULL),
    ARRAY(
        SELECT s.seq || ' ' || s.node_id FROM steps s
        WHERE s.run_id = r.id AND s.lease_token IS NOT NULL
    )
FROM tree t JOIN runs r ON r.id = t.id
WHERE r.created_at <= coalesce((SELECT created_at FROM stop), clock_timestamp())
"""


class Board:
    """What everybody looks at: the runs there are, and where several of them are to meet."""

    def __init__(self, bench: Bench) -> None:
        self._reader = Reader(bench.db)
        self._lock = threading.Lock()
        self._targets: list[Target] = []
        self._appointment = (0.0, "")  # a moment, and the root of a tree
        self.active_roots = 0

    def look(self) -> None:
        """Read the runs again; in one thread only."""
        targets = [Target(*row) for row in self._reader.rows(_PICTURE)]
        self.active_roots = sum(not t.nested and t.status not in TERMINAL for t in targets)
        self._targets = targets

    def choose(self, dice: random.Random) -> Target | None:
        """A run; now and then one of the tree in which somebody else is just about to act."""
        targets = self._targets
        if not targets:
            return None
        now = time.monotonic()
        with self._lock:
            moment, root = self._appointment
            if moment <= now and dice.random() < _TOGETHER:
                root = dice.choice(targets).root
                moment = now + 0.04
                self._appointment = (moment, root)
        if moment > now:
            time.sleep(moment - now)
            targets = [one for one in targets if one.root == root] or targets
        tops = [one for one in targets if not one.nested]
        return dice.choice(tops if tops and dice.random() < 0.5 else targets)

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()


class Caller:
    """One API key, and what was asked with it."""

    def __init__(self, bench: Bench, name: str) -> None:
        _, self._secret = create_key(
            bench.db, name=name, user_id=name, organization_id=bench.actor.organization_id
        )
        self.key = authenticate(bench.db, self._secret).key_id
        self._address = (bench.settings.host, bench.settings.port)
        self._reader = Reader(bench.db)
        self.deeds: list[Deed] = []

    def ask(self, action: str, path: str, run_id: str, body: Mapping[str, Any]) -> Deed:
        """POST ``body`` to a path below /v1/metronomes/, and note what it came to."""
        deed = Deed(self.key, action, run_id, body, time.time_ns())
        try:
            status, headers, content = self._post(f"/v1/metronomes/{path}", body)
        except (OSError, http.client.HTTPException) as error:
            deed.answered, deed.code = time.time_ns(), f"{type(error).__name__}: {error}"
        else:
            deed.answered, deed.status = time.time_ns(), status
            _read(deed, headers, orjson.loads(content))
        if deed.moved and action in STOPS:
            self._see(deed)
        self.deeds.append(deed)
        return deed

    def act(self, action: str, target: Target, body: Mapping[str, Any]) -> Deed:
        """Ask for an action of a run."""
        path = f"{target.metronome_id}/runs/{target.id}/{action}"
        return self.ask(action, path, target.id, body)

    def start(self, metronome_id: str, body: Mapping[str, Any]) -> Deed:
        """Ask for a new run."""
        return self.ask("start", f"{metronome_id}/runs", "", body)

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def _post(
        self, path: str, body: Mapping[str, Any]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """A connection for each request: nobody has to guess whether one was sent twice."""
        client = http.client.HTTPConnection(*self._address, timeout=TIMEOUT)
        headers = {
            "Authorization": f"Bearer {self._secret}",
            "Content-Type": "application/json",
            "Connection": "close",
        }
        try:
            client.request("POST", path, orjson.dumps(body), headers)
            answer = client.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            client.close()

    def _see(self, deed: Deed) -> None:
        rows = self._reader.rows(_TREE, {"run": deed.run_id, "key": self.key})
        for run_id, status, revived, started, in_flight in rows:
            pairs = (entry.split(" ", 1) for entry in in_flight)
            open_steps = tuple((int(seq), node) for seq, node in pairs)
            deed.tree[run_id] = Below(status, revived, frozenset(started), open_steps)


def _read(deed: Deed, headers: http.client.HTTPMessage, body: Any) -> None:
    """What an answer says."""
    if deed.status not in (200, 201):
        deed.code = str(body.get("code"))
        deed.moved = False if deed.status == 409 else None
        return
    title = deed.action.capitalize()
    deed.run_status = body["data"]["status"]
    deed.run_id = body["data"]["id"]
    deed.code = headers.get(f"{title}-Outcome", "")
    deed.moved = deed.code in ("", "cancelled", "paused", "resumed")
    deed.named = frozenset(_named(deed.run_id, headers.get(f"{title}-In-Flight", "")))
    deed.unnamed = int(headers.get(f"{title}-In-Flight-More", 0))


def _named(run_id: str, header: str) -> Iterator[tuple[str, str]]:
    for entry in header.split(",") if header else ():
        above, slash, node = entry.partition("/")
        yield (above, unquote(node)) if slash else (run_id, unquote(above))


class Operator(threading.Thread):
    """Asks for whatever comes to mind, until ``ended``."""

    def __init__(self, caller: Caller, board: Board, seed: str, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._caller = caller
        self._board = board
        self._dice = random.Random(seed)
        self._ended = ended
        self.error: BaseException | None = None

    def run(self) -> None:
        """Choose a run, choose an action, ask, look, wait a little."""
        try:
            while not self._ended.wait(self._dice.choice((0.0, 0.02, 0.05, 0.1))):
                target = self._board.choose(self._dice)
                if target is not None:
                    deed = self._caller.act(*self._choose(target))
                    if deed.status not in (200, 409):
                        self._ended.wait(_AWAY)
        except BaseException as error:
            self.error = error

    def _choose(self, target: Target) -> tuple[str, Target, dict[str, Any]]:
        weights = _WEIGHTS.get(target.status, _WEIGHTS["running"])
        (action,) = self._dice.choices(list(weights), list(weights.values()))
        body: dict[str, Any] = {}
        if action == "resume":
            body = {"confirmInDoubtReplay": self._dice.random() < 0.5}
        elif action == "retry":
            body = {"from": self._dice.choice(("start", "failed"))}
        elif action == "approve":
            body = {"decision": self._dice.choice(("approved", "approved", "rejected"))}
        return action, target, body


_ENDED = {"retry": 10, "cancel": 2, "pause": 1, "resume": 1, "approve": 1}
_WEIGHTS = {
    "queued": {"cancel": 2, "pause": 5, "resume": 1, "retry": 1, "approve": 1},
    "running": {"cancel": 3, "pause": 5, "resume": 1, "retry": 1, "approve": 2},
    "waiting_approval": {"approve": 9, "pause": 4, "cancel": 2, "resume": 1, "retry": 1},
    "paused": {"resume": 12, "cancel": 2, "retry": 2, "pause": 1, "approve": 3},
    **{status: _ENDED for status in TERMINAL},
}


class Starter(threading.Thread):
    """Starts a run whenever fewer than ``most`` at the top of a tree go on, until ``ended``."""

    def __init__(
        self,
        caller: Caller,
        board: Board,
        workflows: list[str],
        seed: str,
        ended: threading.Event,
        *,
        most: int,
    ) -> None:
        super().__init__(daemon=True)
        self._caller = caller
        self._board = board
        self._workflows = workflows
        self._dice = random.Random(seed)
        self._ended = ended
        self._most = most
        self.error: BaseException | None = None

    def run(self) -> None:
        """Look at what goes on, and start what is missing."""
        try:
            while not self._ended.wait(0.1):
                self._board.look()
                for _ in range(min(5, self._most - self._board.active_roots)):
                    self._caller.start(self._dice.choice(self._workflows), self._body())
        except BaseException as error:
            self.error = error

    def _body(self) -> dict[str, Any]:
        dice = self._dice
        given = {"n": dice.randrange(100), "items": list(range(dice.randrange(5)))}
        body: dict[str, Any] = {"input": given, "maxAttempts": dice.choice((1, 1, 2))}
        if dice.random() < 0.1:
            body["timeoutMs"] = dice.choice((500, 2000, 6000))
        return body
