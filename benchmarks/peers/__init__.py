"""Metronome beside others that keep their work in PostgreSQL. ``python -m benchmarks.peers``

Each peer is one file, ``with_<name>.py``: how its database is prepared, what its worker process
runs, and a client for it. It is run by the Python that has the peer installed, as a process of its
own, and says what ``side.py`` asks for. So the measuring program needs none of them.

    with_*.py     a peer at its own documented API, and the settings that are compared
    work.py       what all of them are made to do, and the marks that steps leave
    side.py       the command line of a peer's process, and the protocol of its client
    peer.py       the other side of that: databases, workers, clients
    throughput.py latency.py cancels.py takeover.py idle.py   what is measured, one file each
    results.py    what came of it: tables, JSON, charts, docs/performance.rst
"""
