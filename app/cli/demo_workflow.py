"""The workflow of ``metronome demo``: an order on its way. The delays stand for real work."""

from __future__ import annotations

from typing import Any

NAME = "Demo: an order"
INPUT = {"order": 1042, "quantity": 12, "price": 19.5, "customer": "Ada"}

_NODES: list[tuple[str, str, dict[str, Any]]] = [
    ("order", "trigger", {}),
    ("check_stock", "delay", {"seconds": 0.5}),
    ("total", "transform", {"output": "{{ trigger.input.quantity * trigger.input.price }}"}),
    (
        "size",
        "condition",
        {"conditions": [{"id": "large", "expression": "steps.total.output.value > 100"}]},
    ),
    ("review", "delay", {"seconds": 0.5}),
    ("wave_through", "transform", {"output": "small orders need no review"}),
    ("reserve", "delay", {"seconds": 0.5}),
    ("charge", "delay", {"seconds": 0.6}),
    ("pack", "delay", {"seconds": 0.9}),
    ("invoice", "delay", {"seconds": 0.8}),
    ("label", "transform", {"output": {"to": "{{ trigger.input.customer }}"}}),
    ("mail_invoice", "delay", {"seconds": 0.4}),
    ("hand_over", "delay", {"seconds": 0.9}),
    ("tracking", "transform", {"output": {"url": "/parcels/{{ trigger.input.order }}"}}),
    ("notify", "delay", {"seconds": 0.5}),
    ("follow_up", "delay", {"seconds": 0.6}),
    ("done", "end", {"output": {"order": "{{ trigger.input.order }}", "sent": True}}),
]
_EDGES = [  # source, target, and the branch of a condition
    ("order", "check_stock", None),
    ("check_stock", "total", None),
    ("total", "size", None),
    ("size", "review", "large"),
    ("size", "wave_through", "else"),
    ("review", "reserve", None),
    ("wave_through", "reserve", None),
    ("reserve", "charge", None),
    ("charge", "pack", None),
    ("charge", "invoice", None),
    ("pack", "label", None),
    ("invoice", "mail_invoice", None),
    ("label", "hand_over", None),
    ("mail_invoice", "hand_over", None),
    ("hand_over", "tracking", None),
    ("tracking", "notify", None),
    ("notify", "follow_up", None),
    ("follow_up", "done", None),
]

NODE_IDS = tuple(id for id, _, _ in _NODES)

DEFINITION: dict[str, Any] = {
    "nodes": [{"id": id, "kind": kind, "config": config} for id, kind, config in _NODES],
    "edges": [
        {
            "id": f"{source}-{target}",
            "source": source,
            "target": target,
            **({"sourceHandle": branch} if branch else {}),
        }
        for source, target, branch in _EDGES
    ],
}
