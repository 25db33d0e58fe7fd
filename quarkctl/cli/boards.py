"""quarkctl boards"""

from __future__ import annotations

from typing import Annotated

import typer

from quarkctl import boards
from quarkctl.cli.options import Json, complete_board, examples
from quarkctl.cli.quick import boards_json

app = typer.Typer(add_completion=False)


@app.command(epilog=examples("quarkctl boards", "quarkctl boards s1-virtual"))
def show_boards(
    name: Annotated[str, typer.Argument(metavar="[NAME]", autocompletion=complete_board, help="One board.")] = "",
    as_json: Json = False,
) -> None:
    """List the board profiles, or show one with the source of every fact.

    A fact marked unverified was not seen on a device by anybody here.
    """
    if as_json:
        print(boards_json([name] if name else []))
        return
    loaded = [boards.load(n) for n in ([name] if name else boards.names())]
    from quarkctl.cli import show

    if not name:
        show.table(("board", "title", "firmware"), ((b.name, b.title, _methods(b)) for b in loaded))
        return
    show.table(
        ("fact", "value", "source"),
        (
            (k, _value(f.value), f.source + (" [unverified]" if f.unverified else ""))
            for k, f in loaded[0].facts.items()
        ),
        title=loaded[0].title,
    )


def _methods(board: boards.Board) -> str:
    return ", ".join(board.get("rtos.methods", [])) or "-"


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:16]}.."
