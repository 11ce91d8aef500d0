"""The graphs of immutable versions, read and parsed once per process."""

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
        self._graphs: OrderedDict[str, Graph] = OrderedDict()

    def get(self, version_id: str) -> Graph:
        """The graph of a version. Raises LookupError where there is no such version."""
        with self._lock:
            if (known := self._graphs.get(version_id)) is not None:
                self._graphs.move_to_end(version_id)
                return known
        definition = self._writer.run(lambda c: versions.definition(c, version_id))
        if definition is None:
            raise LookupError(f"no version {version_id}")
        graph = parse(orjson.loads(definition))
        with self._lock:
            self._graphs[version_id] = graph
            if len(self._graphs) > KEPT:
                self._graphs.popitem(last=False)
        return graph
