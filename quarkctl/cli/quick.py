"""Answers that are faster than the parser can be imported."""

from __future__ import annotations

import json
import os


def unchanged_images(argv: list[str]) -> str | None:
    """What ``quarkctl build ar1`` prints when there is nothing to do; None when it has to be asked properly.

    An unchanged build is what a developer's loop mostly meets: looking costs milliseconds, the parser ten times that.
    """
    options = {"--spec": "", "--out": "", "--version": "", "--key": "", "--board": "s1-virtual"}
    short = {"-o": "--out", "-b": "--board"}
    words = iter(argv)
    as_json = False
    for word in words:
        name = short.get(word, word)
        if name == "--json":
            as_json = True
        elif name in options:
            options[name] = next(words, "")
        else:
            return None
    from quarkctl.build.ar1 import stamp

    spec, board = options["--spec"], options["--board"]
    if not spec:
        from quarkctl.build import source
        from quarkctl.errors import QuarkError

        try:
            spec = str(source.root() / "firmware" / "ar1" / f"{board}.toml")
        except QuarkError:
            return None
    stem = os.path.splitext(os.path.basename(options["--spec"]))[0] or board
    out = os.path.normpath(options["--out"] or os.path.join("build", stem, "ar1"))
    record = stamp.load(out)
    asked = stamp.asked(spec, options["--version"], options["--key"])
    restored = False
    if not stamp.unchanged(record, asked, out):
        from quarkctl.build.ar1 import cache
        from quarkctl.errors import QuarkError

        try:
            record, restored = cache.restore(out, asked), True
        except (QuarkError, OSError):
            return None
        if not record:
            return None
    built = {**stamp.told(record, out), "restored": restored}
    if as_json:
        return json.dumps({"schema": "quarkctl.build/1", "chip": "ar1", "board": built["product"], **built}, indent=1)
    return f"{'kept from before' if restored else 'nothing changed'}: {len(built['files'])} files in {out}"


def boards_json(names: list[str]) -> str:
    """The document of ``quarkctl boards --json``."""
    from quarkctl import boards

    found = [boards.load(n).as_dict() for n in names or boards.names()]
    return json.dumps({"schema": "quarkctl.boards/1", "boards": found}, indent=1)
