"""Build, flash and diagnose the firmware of dual-chip smart glasses."""

__version__ = "0.1.0"
