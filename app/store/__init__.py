"""All SQL of Metronome. Nothing outside this package sends a statement."""
