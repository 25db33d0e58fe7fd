"""The command line itself: fast, one error a mistake, stable exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quarkctl.cli.main import run
from quarkctl.cli.verbs import VERBS
from tests.conftest import ROOT, Quarkctl

HEAVY = {"serial", "usb", "construct", "numpy"}


def imported(*args: str, **env: str) -> set[str]:
    """Top-level modules that a command imports, from -X importtime."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "quarkctl.cli.main", *args],
        capture_output=True, text=True, env={**os.environ, **env},
    )  # fmt: skip
    names = re.findall(r"^import time:.*\|\s+([\w.]+)$", done.stderr, re.M)
    assert names
    return {n.split(".")[0] for n in names}


@pytest.mark.parametrize("args", [("--version",), ("--help",), ("boards", "--json")], ids=" ".join)
def test_quick_answers_import_nothing_heavy(args: tuple[str, ...]) -> None:
    assert not imported(*args) & HEAVY


def test_shell_completion_imports_nothing_heavy() -> None:
    env = {"_QUARKCTL_COMPLETE": "complete_bash", "COMP_WORDS": "quarkctl fl", "COMP_CWORD": "1"}
    assert not imported(**env) & HEAVY


def test_version_and_help_do_not_even_import_the_parser() -> None:
    assert "typer" not in imported("--version") | imported("--help")


@pytest.mark.parametrize(
    ("words", "cword", "expected"),
    [("quarkctl fl", "1", "flash"), ("quarkctl boards s1-", "2", "s1-virtual"), ("quarkctl diag bat", "2", "battery"),
     ("quarkctl build rtos --board g1-", "4", "g1-virtual"), ("quarkctl diag battery bus", "3", "bus_minimum")],
    ids=["verb", "board", "check group", "option value", "check"],
)  # fmt: skip
def test_the_shell_completes(words: str, cword: str, expected: str, tmp_path: Path) -> None:
    env = {"_QUARKCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": cword}
    done = Quarkctl(tmp_path, env)()
    assert expected in done.out.split()


def test_help_names_every_verb_and_ends_with_examples_and_codes(quarkctl: Quarkctl) -> None:
    done = quarkctl("--help")
    assert done.code == 0
    assert all(f"  {verb} " in done.out for verb in VERBS)
    assert "Examples:" in done.out and "130 interrupted" in done.out


LEAVES = [
    ("build", "rtos"), ("flash",), ("diag", "battery"), ("diag", "list"), ("diag", "explain"), ("telemetry", "show"),
    ("telemetry", "record"), ("telemetry", "decode"), ("inspect",), ("devices",), ("boards",), ("sim", "start"),
    ("sim", "list"), ("sim", "stop"), ("sim", "battery"), ("sim", "load"), ("sim", "fault"), ("sim", "power"),
    ("sim", "cable"), ("sim", "console"), ("doctor",),
    ("rig", "flash"), ("rig", "diag"), ("rig", "run"), ("rig", "discover"), ("rig", "doctor"), ("rig", "console"),
    ("rig", "list"), ("rig", "power-cycle"), ("rig", "quarantine"), ("rig", "history"), ("rig", "artifacts"),
    ("rig", "serve"), ("rig", "export"), ("rig", "bridge"),
]  # fmt: skip


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_help_ends_with_two_examples(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*words, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.count(f"$ quarkctl {' '.join(words)}") == 2, told
    assert all(len(line.rstrip()) <= 80 for line in told.splitlines())


@pytest.mark.parametrize("verb", ["build", "diag", "telemetry", "sim", "rig"])
def test_the_help_of_a_group_lists_its_commands_and_ends_with_two_examples(verb: str, quarkctl: Quarkctl) -> None:
    done = quarkctl(verb, "--help")
    assert done.code == 0 and done.out.count(f"$ quarkctl {verb} ") == 2
    assert all(words[1] in done.out for words in LEAVES if words[0] == verb)


@pytest.mark.parametrize(
    ("args", "code"),
    [((), 2), (("explode",), 2), (("flash",), 2), (("flash", "x.bin", "--nonsense"), 2), (("boards", "s9"), 2),
     (("flash", "missing.bin"), 6), (("flash", "/etc/passwd"), 6),
     (("inspect", "missing.bin"), 6), (("telemetry", "show", "-d", "/dev/nowhere"), 4),
     (("telemetry", "show", "-d", "sim:nobody"), 4), (("build", "rtos", "--version", "x"), 2),
     (("build", "rtos", "-b", "s1"), 2),
     (("build", "rtos", "--key", "nokey.pem"), 6), (("sim", "start", "--load", "party"), 2)],
    ids=lambda a: " ".join(a) if isinstance(a, tuple) else str(a),
)  # fmt: skip
def test_a_wrong_command_ends_in_its_code_with_one_error(args: tuple[str, ...], code: int, quarkctl: Quarkctl) -> None:
    done = quarkctl(*args)
    assert done.code == code, done.err
    if args:
        assert done.err.count("error:") == 1 and done.out == ""


def test_with_json_the_error_is_a_document_too(quarkctl: Quarkctl) -> None:
    done = quarkctl("flash", "missing.bin", "--json")
    assert done.json["exit_code"] == done.code == 6 and "missing.bin" in done.json["error"]


def test_boards_are_listed_with_sources_and_the_unverified_are_marked(quarkctl: Quarkctl) -> None:
    boards = {b["name"]: b for b in quarkctl("boards", "--json").json["boards"]}
    assert {"s1-virtual", "g1-virtual", "s1", "g1", "esp32-devkit"} <= boards.keys()
    for board in boards.values():
        assert all(f["source"] for f in board["facts"].values())
    assert boards["s1"]["facts"]["rtos.processor"]["unverified"]
    assert "[unverified]" in quarkctl("boards", "s1").out.replace("\n", "")


def test_doctor_names_what_is_missing_and_the_cure(quarkctl: Quarkctl) -> None:
    assert quarkctl("doctor").code in (0, 3)
    quarkctl.env["PATH"] = str(quarkctl.folder)
    done = quarkctl("doctor", "--json")
    checks = {c["name"]: c for c in done.json["checks"]}
    assert done.code == 3
    assert not checks["qemu-system-arm"]["ok"] and "qemu-system-arm" in checks["qemu-system-arm"]["cure"]
    assert "erofs-utils" in checks["mkfs.erofs"]["cure"] or checks["mkfs.erofs"]["ok"]
    rule = quarkctl("doctor", "--udev").out
    assert "05c6" in rule and "ID_MM_DEVICE_IGNORE" in rule


def test_without_tools_a_build_says_which_are_missing(quarkctl: Quarkctl) -> None:
    quarkctl.env["PATH"] = str(quarkctl.folder)
    done = Quarkctl(ROOT, quarkctl.env)("build", "rtos", "--out", quarkctl.folder / "out")
    assert done.code == 3
    assert "cmake, ninja, arm-none-eabi-gcc are not installed" in done.err and "apt-get install" in done.err


def test_outside_a_source_tree_a_wheel_says_so(quarkctl: Quarkctl, monkeypatch: pytest.MonkeyPatch) -> None:
    from quarkctl.build import source
    from quarkctl.errors import HostUnfit

    monkeypatch.chdir(quarkctl.folder)
    monkeypatch.setattr(source, "__file__", str(quarkctl.folder / "a" / "b" / "c.py"))
    with pytest.raises(HostUnfit, match="no firmware source tree"):
        source.rtos()


def test_output_into_a_closed_pipe_is_no_error(quarkctl: Quarkctl) -> None:
    line = " ".join(Quarkctl.command("boards", "s1-virtual", "--json"))
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line} | head -1"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout.strip() + "}") == {}


def test_ctrl_c_is_one_line_and_its_code(quarkctl: Quarkctl) -> None:
    pipe = quarkctl.folder / "never.qrec"
    os.mkfifo(pipe)
    running = quarkctl.start("telemetry", "decode", pipe)
    with pipe.open("wb"):  # returns when the verb has opened its end: it is at work
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "interrupted\n")
