"""Entry point: finds the verb, shows an error once, ends in its exit code."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from quarkctl import __version__
from quarkctl.cli.verbs import VERBS, help_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from quarkctl.errors import QuarkError

INTERRUPTED = 130
USAGE = 2


class _Interrupted(Exception):
    """KeyboardInterrupt on its way out. Some versions of typer turn that one into a silent exit code."""


def main() -> None:
    """``quarkctl``, as installed."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    completing = "_QUARKCTL_COMPLETE" in os.environ
    if not completing and argv == ["--version"]:
        print(f"quarkctl {__version__}")
        return 0
    if not completing and argv in ([], ["--help"], ["-h"], ["help"]):
        print(help_text(), end="")
        return 0 if argv else USAGE
    if not completing and argv == ["boards", "--json"]:
        from quarkctl.cli.quick import boards_json

        print(boards_json([]))
        return 0
    if not completing and argv[:2] == ["build", "ar1"] and "QUARKCTL_BOARD" not in os.environ:
        from quarkctl.cli.quick import unchanged_images

        told = unchanged_images(argv[2:])
        if told is not None:
            print(told)
            return 0
    return _run_verb(_with_events(argv))


def _with_events(argv: list[str]) -> list[str]:
    """``--events`` has an optional value, which the parser does not know: alone, or before ``-``, it is standard output."""
    behind = zip(argv, ["", *argv], strict=False)  # each word with the one before it
    return ["--events=-" if w == "--events" else w for w, before in behind if (before, w) != ("--events", "-")]


def _run_verb(argv: list[str]) -> int:
    from quarkctl.errors import HostUnfit, QuarkError

    try:
        outcome = _parser()(args=argv, prog_name="quarkctl", standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except QuarkError as error:
        _show(error, as_json="--json" in argv)
        return error.exit_code
    except (KeyboardInterrupt, _Interrupted):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        # The parser leaves by itself in two cases: after completion, and when standard output is closed (code 1).
        if isinstance(error, SystemExit) and (error.code != 1 or "_QUARKCTL_COMPLETE" in os.environ):
            raise
        # Whoever read our output has seen enough. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        # Not a bug, and what cannot be written out may not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _show(HostUnfit(f"cannot write {error.filename or 'standard output'}: {error.strerror}"), as_json=False)
        return HostUnfit.exit_code
    except Exception as error:  # noqa: BLE001 - told apart below; what is not known is raised again
        return _parser_error(error, argv)


def _parser() -> Any:
    import typer

    from quarkctl.cli.lazy import Lazy, command

    class Verbs(Lazy):
        """Imports a verb's module when its name is typed; the list of verbs is completed without any of them."""

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt as interrupt:
                raise _Interrupted from interrupt

    def maker(name: str) -> Callable[[], Any]:
        return lambda: command(import_module(f"quarkctl.cli.{name}").app)

    root = typer.Typer(cls=Verbs, add_completion=True, pretty_exceptions_enable=False)

    @root.callback()
    def quarkctl() -> None:
        """Build, flash and diagnose the firmware of dual-chip smart glasses."""

    made: Any = typer.main.get_command(root)
    made.known = {name: (about, maker(name)) for name, about in VERBS.items()}
    return made


def _parser_error(error: Exception, argv: list[str]) -> int:
    """Errors of the command-line parser. Its classes have moved between versions of typer: known by what they can do."""
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    if type(error).__name__ == "Abort":
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    describe = getattr(error, "format_message", None)
    if describe is None:
        raise error
    from quarkctl.errors import UsageWrong

    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "quarkctl"
    message = str(describe()).rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
        print(message)
        return USAGE
    _show(UsageWrong(message[:1].lower() + message[1:], hint=f"{path} --help"), as_json="--json" in argv)
    return USAGE


def _show(error: QuarkError, *, as_json: bool) -> None:
    if as_json:
        import json

        document = {
            "schema": "quarkctl.error/1", "error": error.message, "hint": error.hint, "exit_code": error.exit_code,
        }  # fmt: skip
        print(json.dumps(document))
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    red, plain = ("\033[1;31m", "\033[0m") if colour else ("", "")
    print(f"{red}error:{plain} {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint:  {error.hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
