"""Telemetry verbs on a live device."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.conftest import Glasses, Quarkctl

pytestmark = pytest.mark.qemu
Start = Callable[..., Glasses]


def test_the_newest_values_are_shown_as_one_document(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    done = quarkctl("telemetry", "show", "-d", g.device, "--seconds", "1.5", "--json")
    newest = done.json["newest"]
    assert {"hello", "power", "battery", "thermal"} <= newest.keys()
    assert newest["hello"]["serial"] == g.instance.serial
    assert newest["battery"]["pack_state"]["left_present"] == 1
    assert done.json["counts"]["corrupt"] == done.json["counts"]["lost"] == 0


def test_samples_are_lines_where_there_is_no_terminal(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    done = quarkctl("telemetry", "show", "-d", g.device, "--seconds", "1")
    assert any(" power bus_mv=" in line for line in done.out.splitlines())
    assert "\033" not in done.out + done.err


def test_a_recording_decodes_to_json(quarkctl: Quarkctl, glasses: Start) -> None:
    g = glasses()
    assert quarkctl("telemetry", "record", "a.qrec", "-d", g.device, "--seconds", "1.2", "--json").code == 0
    decoded = quarkctl("telemetry", "decode", "a.qrec", "-m", "power", "--json").json
    assert decoded["ending"] == "complete" and len(decoded["samples"]) >= 8
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
