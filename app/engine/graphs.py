"""The graphs of versions, read and parsed once per process. A revision of one never changes."""

from __future__ import annotations

import threading
from collections import OrderedDict

import orjson

from app.domain.graph import Graph, parse
from app.engine.writer import Writer
from app.store import versions

KEPT = 500  # graphs


class Graphs:
    """A cache of parsed versions, the least recently used dropped first."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._graphs: OrderedDict[tuple[str, int], Graph] = OrderedDict()

    def get(self, version_id: str, revision: int) -> Graph:
        """The graph of a version's revision. Raises LookupError where there is none."""
        key = (version_id, revision)
        with self._lock:
            if (known := self._graphs.get(key)) is not None:
                self._graphs.move_to_end(key)
                return known
        definition = self._writer.run(lambda c: versions.definition(c, version_id, revision))
        if definition is None:
            raise LookupError(f"no version {version_id} with revision {revision}")
        graph = parse(orjson.loads(definition))
        with self._lock:
            self._graphs[key] = graph
            if len(self._graphs) > KEPT:
                self._graphs.popitem(last=False)
        return graph
