"""Bytes to values and back. Nothing here reads a file, a port or a clock."""
