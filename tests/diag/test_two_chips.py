"""Recordings that hold both chips: on one line, or each on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quarkctl import schemas
from quarkctl.diag import checks, columns, limits
from quarkctl.diag.evidence import Evidence
from quarkctl.diag.finding import Finding, Verdict
from quarkctl.diag.product import product_of
from quarkctl.errors import InputWrong
from quarkctl.formats import frame
from quarkctl.formats.recording import Chunk
from quarkctl.telemetry.recorder import Recorder
from quarkctl.telemetry.store import Recording
from tests.diag.virtual import profile

S = schemas.telemetry()
RTOS, AR1 = 1, 2
VERSIONS = {RTOS: (1, 2, 3), AR1: (4, 5, 6)}


def stream(chip: int, starts: int = 1, **extra: dict[str, Any]) -> bytes:
    """Hellos (and messages) of a chip that starts so often, a second each."""
    out = bytearray()
    for boot in range(1, starts + 1):
        major, minor, revision = VERSIONS[chip]
        hello = {
            "layout_hash": S.layout_hash, "boot_id": boot, "board": "s1-virtual", "serial": f"chip{chip}",
            "version_major": major, "version_minor": minor, "version_revision": revision, "build_id": [chip] * 8,
        }  # fmt: skip
        for k in range(20):
            others = list(extra.items())
            name, values = ("hello", hello) if k % 5 == 0 or not extra else others[k % len(others)]
            body = S.pack(S.messages[name], values)
            seed = 0 if name == "hello" else S.crc_seed
            kind = S.messages[name].type or 0
            out += frame.build(frame.Frame(kind, chip | boot << 4, k, k * 100_000, body), seed)
    return bytes(out)


def judged(path: Path, *lines: bytes) -> Evidence:
    recorder = Recorder(path, S, "both")
    for number, data in enumerate(lines):
        recorder.write(Chunk(1_000_000_000, data, number))
    recorder.close()
    return columns.recorded(Recording(path), product_of)


@pytest.mark.parametrize("own_line", [False, True], ids=["one-line", "two-lines"])
def test_a_report_names_the_builds_of_both_chips(tmp_path: Path, own_line: bool) -> None:
    both = [stream(RTOS), stream(AR1)]
    identity = judged(tmp_path / "a.qrec", *(both if own_line else [b"".join(both)])).identity()
    assert identity["serial"] == "chip1"
    assert (identity["rtos"], identity["rtos_build_id"]) == ("1.2.3", "01" * 8)
    assert (identity["ar1"], identity["ar1_build_id"]) == ("4.5.6", "02" * 8)


def test_what_the_microcontroller_heard_names_a_silent_ar1(tmp_path: Path) -> None:
    heard = judged(tmp_path / "a.qrec", stream(RTOS, ar1_link={"ar1_version": 7 << 24 | 8 << 16 | 9})).identity()
    assert (heard["ar1"], heard["ar1_build_id"]) == ("7.8.9", "not reported")
    assert judged(tmp_path / "b.qrec", stream(RTOS)).identity()["ar1"] == "not reported"


def test_a_restart_of_the_ar1_alone_is_no_kept_state(tmp_path: Path) -> None:
    known: limits.Limits = profile("s1-virtual")[1]
    evidence = judged(tmp_path / "a.qrec", stream(RTOS), stream(AR1, starts=2))
    verdicts = {f.subject: f.verdict for f in checks.run(evidence, known, checks.select("battery", ["state_kept"]))}
    assert verdicts == {"": Verdict.PASS, "ar1": Verdict.FAIL}


def heated(path: Path, *zones: list[int]) -> list[Finding]:
    """What is judged of zones that the AR1 sends, a frame each; the microcontroller's are all at 30 C."""
    rtos = stream(RTOS, thermal={"zone_decic": [300] * 5}, power={"bus_mv": 4000, "load_ma": 100})
    frames = [stream(AR1)]
    for k, zone in enumerate(zones):
        body = S.pack(S.messages["ar1_thermal"], {"zone_decic": zone})
        head = (S.messages["ar1_thermal"].type or 0, AR1 | 1 << 4, 20 + k, 1_000_000 * (k + 2))
        frames.append(frame.build(frame.Frame(*head, body), S.crc_seed))
    evidence = judged(path, rtos, b"".join(frames))
    return checks.run(evidence, profile("s1-virtual")[1], checks.select("all", ["SEN-002", "THM-007"]))


def test_the_ar1s_own_zones_are_judged_too(tmp_path: Path) -> None:
    none = -32768
    cool = heated(tmp_path / "a.qrec", *[[450, 440, none, 310]] * 8)
    assert [(f.code, f.subject, f.verdict) for f in cool] == [
        ("THM-007", "", Verdict.PASS), ("THM-007", "ar1", Verdict.PASS), ("SEN-002", "", Verdict.PASS),
    ]  # fmt: skip
    assert cool[1].value == pytest.approx(31.0) and cool[1].span and cool[1].span.message == "ar1_thermal"
    assert "3 of the AR1's own" in cool[2].note
    hot = heated(tmp_path / "b.qrec", *[[450, 440, none, 450]] * 8)
    assert [f.verdict for f in hot if f.subject == "ar1"] == [Verdict.FAIL]
    broken = heated(tmp_path / "c.qrec", *[[450, 440, none, 310]] * 6, [none, 440, none, 1600])
    assert {f.subject for f in broken if f.verdict is Verdict.FAIL} == {"ar1 cpu", "ar1 skin"}


def test_an_ar1_without_a_skin_sensor_or_with_few_readings_is_no_fault(tmp_path: Path) -> None:
    bare = heated(tmp_path / "a.qrec", *[[450, -32768, -32768, -32768]] * 8)
    assert [(f.code, f.verdict) for f in bare] == [("THM-007", Verdict.PASS), ("SEN-002", Verdict.PASS)]
    few = heated(tmp_path / "b.qrec", *[[450, 440, 300, 310]] * 3)
    assert [f.verdict for f in few if f.subject == "ar1"] == [Verdict.SKIP]


def test_two_microcontrollers_are_two_devices(tmp_path: Path) -> None:
    with pytest.raises(InputWrong, match="2 lines of microcontrollers"):
        judged(tmp_path / "a.qrec", stream(RTOS), stream(RTOS))
