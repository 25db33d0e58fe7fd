"""Many glasses and nobody near: stations, a worker each, verdicts, history."""
