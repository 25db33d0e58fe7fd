"""Telemetry verbs on a live device."""

from __future__ import annotations

import json
import os
import subprocess
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from quarkctl import schemas
from quarkctl.formats.stream import Decoder
from quarkctl.link.serial_port import open_serial
from quarkctl.sim import control
from quarkctl.telemetry import live
from quarkctl.telemetry.info import summary
from quarkctl.telemetry.timeline import open_timeline
from tests.conftest import BUILD, ROOT, Glasses, Quarkctl

pytestmark = pytest.mark.qemu
Start = Callable[..., Glasses]


def awake(g: Glasses) -> Glasses:
    """Its firmware has booted and sends: on a busy host that takes longer than some of these tests listen."""
    link, decoder = open_serial(control.port(g.name), 1_000_000), Decoder(schemas.telemetry())
    for chunk in live.chunks(link, live.Until(60.0), silence_s=30.0):
        if any(s.message.name == "power" for s in decoder.feed(chunk.data)):
            break
    link.close()
    return g


def test_the_newest_values_are_shown_as_one_document(quarkctl: Quarkctl, glasses: Start) -> None:
    g = awake(glasses())
    done = quarkctl("telemetry", "show", "-d", g.device, "--seconds", "2.5", "--json")
    newest = done.json["newest"]
    assert {"hello", "power", "battery", "thermal"} <= newest.keys()
    assert newest["hello"]["serial"] == g.instance.serial
    assert newest["battery"]["pack_state"]["left_present"] == 1
    assert done.json["counts"]["corrupt"] == done.json["counts"]["lost"] == 0


def test_samples_are_lines_where_there_is_no_terminal(quarkctl: Quarkctl, glasses: Start) -> None:
    g = awake(glasses())
    done = quarkctl("telemetry", "show", "-d", g.device, "--seconds", "1")
    assert any(" power bus_mv=" in line for line in done.out.splitlines())
    assert "\033" not in done.out + done.err


def test_a_recording_decodes_to_json(quarkctl: Quarkctl, glasses: Start) -> None:
    g = awake(glasses())
    assert quarkctl("telemetry", "record", "a.qrec", "-d", g.device, "--max-mb", "0.01", "--json").code == 0
    decoded = quarkctl("telemetry", "decode", "a.qrec", "-m", "power", "--json").json
    assert decoded["ending"] == "complete" and len(decoded["samples"]) >= 2
    assert {s["message"] for s in decoded["samples"]} == {"power"}
    assert quarkctl("telemetry", "decode", "a.qrec", "-m", "nonsense").code == 2
    again = quarkctl("telemetry", "record", "a.qrec", "-d", g.device, "--seconds", "1")
    assert again.code == 6 and "exists already" in again.err
    shown = quarkctl("inspect", "a.qrec", "--json").json["files"][0]
    assert shown["kind"] == "telemetry recording" and shown["serial"] == g.instance.serial


def test_a_silent_port_is_an_error_not_a_hang(quarkctl: Quarkctl) -> None:
    master, slave = os.openpty()
    path = os.ttyname(slave)
    os.close(slave)
    done = quarkctl("telemetry", "record", "a.qrec", "-d", path)
    os.close(master)
    assert done.code == 4 and "is silent for" in done.err


def test_a_device_with_another_layout_is_named_with_both_hashes(quarkctl: Quarkctl) -> None:
    from quarkctl import schemas
    from quarkctl.formats import frame

    s = schemas.telemetry()
    hello = s.pack(s.messages["hello"], {"layout_hash": 0x1234})
    master, slave = os.openpty()
    path = os.ttyname(slave)
    os.close(slave)
    reader = quarkctl.start("telemetry", "show", "-d", path, "--json")
    wire = frame.build(frame.Frame(0x01, 0, 0, 0, hello), s.crc_seed)
    while reader.poll() is None:  # whenever it has opened the port, a hello is on its way
        os.set_blocking(master, False)
        try:
            os.write(master, wire)
        except BlockingIOError:
            os.sched_yield()
    out, err = reader.communicate()
    os.close(master)
    assert reader.returncode == 5
    assert "0x1234" in err and json.loads(out)["exit_code"] == 5


def test_two_lines_are_recorded_into_one_file_and_stand_on_one_time_line(quarkctl: Quarkctl) -> None:
    from tests.telemetry.test_files import Device, record

    rtos, ar1 = Device(), Device(chip=2, boot_id=3)
    for _ in range(20):
        rtos.say("takeover")
        ar1.say("thermal")
    players = []
    for name, device in (("rtos", rtos), ("ar1", ar1)):
        record(quarkctl.folder / f"{name}.qrec", device)
        players.append(quarkctl.start("telemetry", "replay", f"{name}.qrec", "--speed", "0"))
    ports = [p.stdout.readline().strip() for p in players if p.stdout]
    size = str(sum(len(c.data) for d in (rtos, ar1) for c in d.chunks) / 1e6)  # it ends when it has everything
    done = quarkctl("telemetry", "record", "both.qrec", "-d", ports[0], "--also", ports[1], "--max-mb", size, "--json")
    assert done.code == 0, done.err
    for p in players:
        p.communicate(timeout=30)
    streams = quarkctl("telemetry", "info", "both.qrec", "--json").json["streams"]
    assert {(s["chip"], s["counts"]["received"]) for s in streams} == {("rtos", 21), ("ar1", 21)}


@contextmanager
def uart() -> Iterator[tuple[int, str]]:
    """A line: the end of a device, and the port of the host."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    port = os.ttyname(slave)
    os.close(slave)  # or it would be held by somebody
    yield master, port
    os.close(master)


def agent(fd: int) -> subprocess.Popen[bytes]:
    """The AR1's agent, compiled for this computer; its UART is ``fd``."""
    program = BUILD / "host" / f"ar1_agent-{os.getpid()}"
    program.parent.mkdir(parents=True, exist_ok=True)
    rtos, here = ROOT / "firmware/rtos", ROOT / "firmware/ar1/agent"
    subprocess.run(
        [
            "gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-o", program,
            '-DQK_BOARD="g1-virtual"', "-DQK_VERSION_MAJOR=1", "-DQK_VERSION_MINOR=2", "-DQK_VERSION_REVISION=3",
            *(f"-I{p}" for p in (here, rtos / "core", rtos / "wire")), "-Wl,--wrap=open",
            ROOT / "tests/telemetry/ar1_agent.c", here / "report.c", here / "port.c", rtos / "core/frame.c",
            rtos / "core/crc.c",
        ],
        check=True,
    )  # fmt: skip
    return subprocess.Popen([program, str(fd)], stdin=subprocess.PIPE, pass_fds=[fd])


def test_the_firmware_and_the_ar1s_agent_stand_on_one_time_line(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    with uart() as (end, port):
        ar1 = agent(end)
        done = quarkctl(
            "telemetry", "record", "both.qrec", "-d", g.device, "--also", port, "--seconds", "2.5", "--json"
        )
        ar1.communicate(timeout=30)
    assert done.code == 0 and ar1.returncode == 0, done.err
    timeline = open_timeline([quarkctl.folder / "both.qrec"])
    summed = summary(timeline)
    assert [(s["chip"], s["board"]) for s in summed["streams"]] == [("rtos", "s1-virtual"), ("ar1", "g1-virtual")]
    assert all(s["starts"][0]["clock"]["uncertainty_us"] >= 0 for s in summed["streams"])
    began = summed["files"][0]["started_ns"]
    spans = {}
    for rows in timeline.rows():
        if rows.name in ("power", "ar1_load"):
            low, high = spans.get(rows.name, (2**63, 0))
            spans[rows.name] = min(low, int(rows.time_ns.min())), max(high, int(rows.time_ns.max()))
        if rows.name == "ar1_load":
            # Its clock is one that can be read here too: what the time line says of it is true.
            truth = rows.time_us * 1000 + time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            assert np.all(np.abs(rows.time_ns - truth) < 100_000_000)
    assert all(low < began + 1_500_000_000 and high > began + 1_500_000_000 for low, high in spans.values()), spans
    told = quarkctl(
        "telemetry", "query", "select count(*) n from power p asof join ar1_load a on p.time >= a.time", "both.qrec",
        "--json",
    )  # fmt: skip
    assert told.json["rows"][0]["n"] > 5


def test_two_devices_are_shown_beside_each_other(quarkctl: Quarkctl) -> None:
    with uart() as one, uart() as two:
        agents = [agent(end) for end, _ in (one, two)]
        done = quarkctl("telemetry", "show", "-d", one[1], "--also", two[1], "--seconds", "1", "--json")
        for a in agents:
            a.communicate(timeout=30)
    newest = done.json["newest"]
    assert {"1 ar1 ar1_load", "2 ar1 ar1_load"} <= newest.keys()
    assert newest["1 ar1 hello"]["boot_id"] != newest["2 ar1 hello"]["boot_id"]


def test_a_device_of_an_unknown_layout_is_recorded_all_the_same(quarkctl: Quarkctl) -> None:
    from quarkctl.formats import schema
    from tests.telemetry.test_recorder import record, renamed, wire

    other = schema.parse(renamed())
    record(quarkctl.folder / "other.qrec", other, wire(other, 50))
    player = quarkctl.start("telemetry", "replay", "other.qrec", "--speed", "0")
    assert player.stdout
    port = player.stdout.readline().strip()
    size = str(len(wire(other, 50)) / 1e6)
    done = quarkctl("telemetry", "record", "raw.qrec", "-d", port, "--max-mb", size)
    player.communicate(timeout=30)
    assert done.code == 0 and f"{other.layout_hash:#06x}" in done.err and "recorded as it comes" in done.err
    assert quarkctl("telemetry", "info", "raw.qrec").code == 5
    release = quarkctl.folder / "release"
    release.mkdir()
    for name, text in other.sources.items():
        (release / f"{name}.toml").write_text(text, "utf-8")
    done = quarkctl("telemetry", "info", "raw.qrec", "--schemas", release, "--json")
    assert done.code == 0 and done.json["streams"][0]["counts"]["received"] == 50, done.err
