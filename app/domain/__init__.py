"""What Metronome means, in pure Python: no database, no HTTP, no threads' work."""
