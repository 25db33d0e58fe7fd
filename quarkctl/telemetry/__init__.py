"""Streams and recordings of telemetry."""
