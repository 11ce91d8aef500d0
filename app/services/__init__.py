"""Use cases, shared by the API, the command line and the engine."""
