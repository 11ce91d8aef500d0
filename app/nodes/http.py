from __future__ import annotations
from app.nodes.base import NodeKind
class Http(NodeKind):
    kind = "http"
