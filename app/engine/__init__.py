"""The executor: claims runs, walks their graphs, and stops where the database says so."""
