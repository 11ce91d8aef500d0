"""What came for a step from outside, but too late to count: it is kept in the step's metadata."""

from __future__ import annotations

from app.domain.lifecycle import WAITING_APPROVAL


def time_text(moment: str) -> str:
    """SQL for a time, an SQL expression, as the API writes it."""
    return f"""to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def kept(metadata: str = "s.metadata") -> str:
    """SQL for the metadata of the open step ``s`` when it is closed without its ``result``.

    ``metadata`` is an SQL expression for what it would be else. A callback is kept as
    ``lateCallback``, with the time at which it came, and the decision on an approval as
    ``lateDecision``.
    """
    came = f"jsonb_build_object('at', {time_text('s.updated_at')})"
    return f"""CASE WHEN s.result IS NULL THEN {metadata} ELSE CAST(
        coalesce(CAST({metadata} AS jsonb), jsonb_build_object()) || CASE s.status
            WHEN '{WAITING_APPROVAL}'
            THEN jsonb_build_object('lateDecision', CAST(s.result AS jsonb))
            ELSE jsonb_build_object('lateCallback',
                CAST(s.result AS jsonb) - 'retryable' || {came}) END
        AS json) END"""
