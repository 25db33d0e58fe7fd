"""The verbs, with one line each. Their modules are imported when they are used: start-up is a feature."""

from __future__ import annotations

#: {verb: what it does}; the module is quarkctl.cli.<verb>.
VERBS = {
    "build": "build firmware and sign it",
    "flash": "put firmware on a device: plan, write, verify, test boot, confirm",
    "ar1": "ask and switch the application processor's boot loader and boot ROM",
    "diag": "run diagnostics and give a verdict",
    "telemetry": "show, record and decode the telemetry stream",
    "inspect": "explain a file: image, recording, crash report",
    "devices": "list what can be flashed",
    "boards": "list the board profiles, or show one with its sources",
    "rig": "flash and judge many glasses at once; history, page, stations",
    "bundle": "look into release bundles, and sign them",
    "keys": "make keys, see who is trusted, hand over to new ones",
    "sim": "start, stop and torment virtual glasses",
    "doctor": "check this computer and print the cure",
}

EXAMPLES = (
    "quarkctl build rtos --board s1-virtual",
    "quarkctl flash build/s1-virtual/rtos-1.1.0.bin --device sim:s1",
)


def help_text() -> str:
    """Help of the program itself, without importing anything."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {text}" for name, text in VERBS.items())
    examples = "\n".join(f"  {e}" for e in EXAMPLES)
    return f"""\
Usage: quarkctl VERB [OPTIONS] ...

Build, flash and diagnose the firmware of dual-chip smart glasses.

Verbs:
{verbs}

Options:
  --version             print the version
  --show-completion     print the completion script of this shell
  --install-completion  install it
  --help                this text; after a verb: its options

Examples:
{examples}

Exit codes: 0 done, 1 bug, 2 command line, 3 host, 4 link, 5 protocol, 6 input, 7 fault found, 8 no verdict,
9 some stations failed, 10 none passed, 130 interrupted
"""
