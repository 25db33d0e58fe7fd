"""Groups of commands that are made when they are asked for: to make all of them takes longer than most of them run."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Lazy(TyperGroup):
    """A group that knows names and short helps, and makes a command at the first question for it."""

    #: {name: (first line of its help, what makes it)}
    known: dict[str, tuple[str, Callable[[], Any]]]
    _listing = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self._listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.known)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.known:
            return None
        about, make = self.known[cmd_name]
        if self._listing:
            return TyperCommand(cmd_name, help=about)
        if cmd_name not in self.commands:
            self.commands[cmd_name] = make()
            self.commands[cmd_name].name = cmd_name
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.known:  # a mistake: the parser looks for a name that is near
            for name, (about, _) in self.known.items():
                self.commands.setdefault(name, TyperCommand(name, help=about))
        return super().resolve_command(ctx, args)


def command(app: typer.Typer) -> Any:
    """As `typer.main.get_command`. The commands of a group are made one by one."""
    if not app.registered_callback or app.registered_groups:
        return typer.main.get_command(app)
    bare = copy(app)
    bare.info, bare.registered_commands = copy(app.info), []
    bare.info.cls = Lazy
    group: Any = typer.main.get_command(bare)
    group.known = {
        _name(info): (_about(info), _maker(app, info)) for info in app.registered_commands if not info.hidden
    }
    return group


def _name(info: Any) -> str:
    return str(info.name or info.callback.__name__.replace("_", "-"))


def _about(info: Any) -> str:
    return str(info.help or info.callback.__doc__ or "").strip().partition("\n")[0]


def _maker(app: typer.Typer, info: Any) -> Callable[[], Any]:
    def make() -> Any:
        alone = copy(app)
        alone.registered_commands, alone.registered_callback = [info], None
        return typer.main.get_command(alone)

    return make
