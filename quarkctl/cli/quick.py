"""Answers that are faster than the parser can be imported."""

from __future__ import annotations

import json
from pathlib import Path


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
    from quarkctl.build import source
    from quarkctl.build.ar1.request import Request, unchanged
    from quarkctl.errors import QuarkError

    try:
        spec = Path(options["--spec"] or source.root() / "firmware" / "ar1" / f"{options['--board']}.toml")
    except QuarkError:
        return None
    stem = spec.stem if options["--spec"] else options["--board"]
    out = Path(options["--out"] or Path("build") / stem / "ar1")
    built = unchanged(Request(spec, out, options["--version"], options["--key"]))
    if built is None:
        return None
    if as_json:
        told = {"schema": "quarkctl.build/1", "chip": "ar1", "board": built.product, **built.as_dict()}
        return json.dumps(told, indent=1)
    return f"nothing changed: {len(built.files)} files in {built.out}"


def boards_json(names: list[str]) -> str:
    """The document of ``quarkctl boards --json``."""
    from quarkctl import boards

    found = [boards.load(n).as_dict() for n in names or boards.names()]
    return json.dumps({"schema": "quarkctl.boards/1", "boards": found}, indent=1)
