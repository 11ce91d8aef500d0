"""Programs that measure Metronome, and that try to break its promises.

    python -m benchmarks.steps     steps a second against the raw rate of the boundary statement
    python -m benchmarks.scaling   executors, threads, sizes of graphs, sizes of outputs
    python -m benchmarks.http      requests a second against a no-op route, and their round trips
    python -m benchmarks.growth    what the number of runs in the table costs
    python -m benchmarks.cancel    how soon a node in flight has ended after a cancel
    python -m benchmarks.peers     Metronome beside DBOS, Absurd, PgQueuer, Procrastinate and Oban
    python -m benchmarks           all of these, one after the other: make bench
    python -m benchmarks.stress    cancels at random moments, then a storm of everything at once
    python -m benchmarks.crash     executors killed under load, every trace checked
    python -m benchmarks.schedules due times through a kill and a restart: one run each

Each brings its own PostgreSQL in a temporary directory, or uses a database of its own in the server
of DATABASE_URL, and leaves nothing behind. ``--quick`` only shows that a program works.
"""
