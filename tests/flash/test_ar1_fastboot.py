"""Flash the AR1 in fastboot: what is checked before the first byte, what is written where, and what goes wrong."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from quarkctl.errors import (
    DeviceRefused,
    InputWrong,
    LinkTimeout,
    ProtocolError,
    QuarkError,
    UsageWrong,
    VerificationFailed,
)
from quarkctl.flash import fastboot, fastboot_session
from quarkctl.formats import lp, segments
from quarkctl.link import udp
from tests.ar1 import Bench, Maker, file, noise

BOOT = noise(500_000)


def boot(b: Bench, name: str = "boot.img") -> Path:
    return file(b.folder, name, BOOT)


@pytest.mark.parametrize("wire", ["usb", "tcp", "udp"])
def test_the_inactive_slot_is_written_proved_and_activated_last(ar1: Maker, wire: str) -> None:
    b = ar1("fastboot")
    result = b.fastboot(boot(b), file(b.folder, "system.img", noise(2_000_000, 2)), wire=wire)
    assert [s.name for s in result.plan.steps] == ["flash boot_b", "flash system_b", "activate", "restart"]
    assert b.stored("boot_b", len(BOOT)) == BOOT and b.stored("boot_a", 4096) == bytes(4096)
    assert result.facts["verified"] == {"boot_b": "digest", "system_b": "digest"}
    assert b.ar1.wait_for("system")
    b.ar1.enter("fastboot")
    assert "would" not in b.told() and b.plan(fastboot_session, boot(b), wire=wire).facts["slot"] == "b"


def test_a_slot_that_would_lack_partitions_is_not_activated(ar1: Maker) -> None:
    b = ar1("fastboot")
    result = b.fastboot(boot(b), restart=False)
    assert result.plan.reasons == ("slot b stays inactive: nobody writes its system",)
    assert b.plan(fastboot_session, boot(b)).facts["slot"] == "a"


def test_the_running_slot_is_written_only_after_a_question(ar1: Maker) -> None:
    b = ar1("fastboot")
    assert "which the device runs from" in b.plan(fastboot_session, boot(b), slot="active").questions[0]


def test_what_is_there_already_is_not_sent_again(ar1: Maker) -> None:
    b = ar1("fastboot")
    b.fastboot(boot(b), restart=False)
    before = b.ar1.storage.written_bytes
    result = b.fastboot(boot(b), restart=False)
    assert result.facts["skipped_bytes"] == len(BOOT) and b.ar1.storage.written_bytes == before


@pytest.mark.parametrize("wire", ["usb", "tcp", "udp"])
def test_an_image_larger_than_the_device_takes_at_once_goes_in_pieces(ar1: Maker, wire: str) -> None:
    b = ar1("fastboot", max_download_bytes=200_000)
    image = noise(700_001)
    result = b.fastboot(f"{file(b.folder, 'big.bin', image)}@userdata", wire=wire, restart=False)
    assert b.stored("userdata", len(image)) == image and result.facts["verified"] == {"userdata": "digest"}


def test_an_interrupted_image_goes_on_with_the_piece_that_was_missing(ar1: Maker) -> None:
    b = ar1("fastboot", max_download_bytes=200_000, quirks=("no_digest",))
    image = file(b.folder, "userdata.img", noise(1_500_000))
    b.ar1.storage.cut_after(1_000_000, b.ar1.power_cut)
    with pytest.raises(QuarkError):
        b.fastboot(image, wire="tcp", restart=False)
    b.ar1.enter("fastboot")
    result = b.fastboot(image, wire="tcp", restart=False)
    assert result.resumed and 900_000 < int(str(result.facts["skipped_bytes"])) < 1_500_000
    assert b.stored("userdata", 1_500_000) == image.read_bytes()


def test_holes_of_a_sparse_image_keep_what_is_there(ar1: Maker) -> None:
    b = ar1("fastboot")
    b.fastboot(f"{file(b.folder, 'old.bin', b'o' * 3 * 4096)}@userdata", restart=False)
    header = struct.pack("<I4H4I", 0xED26FF3A, 1, 0, 28, 12, 4096, 3, 3, 0)
    chunks = struct.pack("<2H2I", 0xCAC1, 0, 1, 12 + 4096) + b"n" * 4096 + struct.pack("<2H2I", 0xCAC3, 0, 1, 12)
    chunks += struct.pack("<2H2II", 0xCAC2, 0, 1, 16, 0x66666666)
    b.fastboot(f"{file(b.folder, 'x.simg', header + chunks)}@userdata", restart=False)
    assert b.stored("userdata", 3 * 4096) == b"n" * 4096 + b"o" * 4096 + b"f" * 4096


# --- refusals before the first byte -----------------------------------------------------------------------------------


def refused(b: Bench, kind: type[QuarkError], words: str, *sources: str | Path, **wish: object) -> None:
    """The flash is refused in these words, and nothing was written."""
    before = b.ar1.storage.written_bytes
    with pytest.raises(kind, match=words):
        b.fastboot(*sources, **wish)
    assert b.ar1.storage.written_bytes == before


def test_a_partition_that_does_not_exist_is_refused(ar1: Maker) -> None:
    b = ar1("fastbootd")
    refused(b, InputWrong, "no partition nonesuch", boot(b, "nonesuch.img"))


def super_image(*names: str) -> bytes:
    """What lpmake writes for a super partition of 8 MiB with empty logical partitions."""
    partitions = tuple(lp.Partition(name, 0, ()) for name in names)
    made = lp.Metadata(0, partitions, (lp.Group("default"),), (lp.Device("super", 8 << 20, first_sector=2048),))
    return segments.joined(lp.build([made] * 2, [lp.Content(name, ()) for name in names]))


def test_an_unknown_partition_is_refused_before_fastbootd_is_asked_where_that_is_known(ar1: Maker) -> None:
    b = ar1("fastboot")
    image = file(b.folder, "super.img", super_image("odm_a"))
    refused(b, InputWrong, "no partition nonesuch", image, boot(b, "nonesuch.img"), wire="tcp")
    assert b.ar1.mode == "fastboot"
    plan = b.plan(fastboot_session, boot(b, "nonesuch.img"), wire="tcp")
    assert plan.step_names[0] == "fastbootd" and "ask it for nonesuch" in plan.steps[0].text
    b.plan(fastboot_session, image, boot(b, "odm_a.img"), wire="tcp")


def test_a_partition_that_fastbootd_does_not_know_either_is_refused_there(ar1: Maker) -> None:
    b = ar1("fastboot")
    before = b.ar1.storage.written_bytes
    with pytest.raises(InputWrong, match="no partition nonesuch") as caught:
        b.fastboot(boot(b, "nonesuch.img"))
    assert "goes back to its boot loader" in caught.value.hint and b.ar1.storage.written_bytes == before
    assert b.ar1.wait_for("fastboot")


def test_an_image_larger_than_its_partition_is_refused(ar1: Maker) -> None:
    b = ar1("fastboot")
    refused(b, InputWrong, "has 1048577 bytes, boot_b holds 1048576", file(b.folder, "boot.img", bytes(1048577)))


def test_a_locked_device_is_told_before_anything_is_sent(ar1: Maker) -> None:
    b = ar1("fastboot")
    b.ar1.remembered.unlocked = False
    refused(b, DeviceRefused, "locked", boot(b))


def test_a_low_battery_is_told_before_anything_is_sent(ar1: Maker) -> None:
    b = ar1("fastboot")
    b.ar1.remembered.battery_soc_pct = 9
    refused(b, DeviceRefused, "battery is too low", boot(b))


def test_a_merging_snapshot_is_told_before_anything_is_sent(ar1: Maker) -> None:
    b = ar1("fastboot")
    b.ar1.remembered.snapshot = "merging"
    refused(b, DeviceRefused, "merges a snapshot", boot(b))


def test_partitions_with_fuses_need_an_explicit_word(ar1: Maker) -> None:
    b = ar1("fastboot")
    refused(b, UsageWrong, "persist holds fuses", boot(b, "persist.img"))
    b.fastboot(boot(b, "persist.img"), secdata=True, restart=False)


def test_a_damaged_sparse_image_is_refused_without_a_device(ar1: Maker) -> None:
    b = ar1("fastboot")
    refused(
        b,
        InputWrong,
        r"boot\.img: sparse image: total_blks",
        file(b.folder, "boot.img", struct.pack("<I4H4I", 0xED26FF3A, 1, 0, 28, 12, 4096, 9, 0, 0)),
    )


# --- what devices do --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quirk", ["bare_numbers", "empty_unknown"])
def test_boot_loaders_that_bend_the_protocol_are_flashed(ar1: Maker, quirk: str) -> None:
    b = ar1("fastboot", quirks=(quirk,))
    b.fastboot(boot(b), restart=False)
    assert b.stored("boot_b", len(BOOT)) == BOOT


@pytest.mark.parametrize("wire", ["usb", "tcp"])
def test_a_device_that_never_answers_is_given_up(ar1: Maker, wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastboot, "QUICK_S", 0.1)
    b = ar1("fastboot", quirks=("mute",))
    refused(b, LinkTimeout, "did not answer 'getvar:all'", boot(b), wire=wire)


def test_answers_that_are_no_fastboot_are_shown_in_hexadecimal(ar1: Maker) -> None:
    b = ar1("fastboot", quirks=("garbage",))
    refused(b, ProtocolError, "4d 4f 52 45 ff 00", boot(b))


def test_endless_information_is_given_up(ar1: Maker) -> None:
    b = ar1("fastboot", quirks=("endless_info",))
    refused(b, ProtocolError, "lines to 'getvar:all' and no end", boot(b))


def test_another_size_than_the_one_asked_for_stops_before_the_data(ar1: Maker) -> None:
    b = ar1("fastboot", quirks=("wrong_data_size",))
    refused(b, ProtocolError, f"wants {len(BOOT) - 1} bytes instead of {len(BOOT)}", boot(b))


def test_lost_datagrams_are_sent_again(ar1: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "RESEND_S", 60.0)  # what answers take decides, and they come at once
    monkeypatch.setattr(udp, "RESEND_MIN_S", 0.002)
    b = ar1("fastboot", quirks=("lost_datagrams",))
    b.fastboot(boot(b), wire="udp", restart=False)
    assert b.stored("boot_b", len(BOOT)) == BOOT


@pytest.mark.parametrize("wire", ["usb", "tcp"])
def test_a_device_that_restarts_in_the_middle_is_told_and_the_next_try_succeeds(ar1: Maker, wire: str) -> None:
    b = ar1("fastboot", quirks=("reboots_away",))
    refused(b, QuarkError, "went away|closed the connection", boot(b), wire=wire)
    b.ar1.wait_for("system")
    b.ar1.settings.quirks.clear()
    b.ar1.enter("fastboot")
    b.fastboot(boot(b), wire=wire, restart=False)


def test_bad_storage_is_told_in_the_words_of_the_device(ar1: Maker) -> None:
    b = ar1("fastboot")
    b.ar1.storage.bad.add((0, 300))
    with pytest.raises(DeviceRefused, match="storage: write error at sector 300") as caught:
        b.fastboot(boot(b), restart=False)
    assert "worn out" in caught.value.hint


def test_what_the_device_holds_after_the_write_decides(ar1: Maker) -> None:
    b = ar1("fastboot", quirks=("digest_lies",))
    with pytest.raises(VerificationFailed, match="boot_b does not hold what is in the file"):
        b.fastboot(boot(b), file(b.folder, "system.img", noise(5000)))
    b.ar1.settings.quirks.clear()
    assert b.plan(fastboot_session, boot(b)).facts["slot"] == "a", "nothing was activated"


def test_a_boot_loader_that_proves_nothing_is_said_so(ar1: Maker) -> None:
    b = ar1("fastboot", quirks=("no_digest",))
    assert b.fastboot(boot(b), restart=False).facts["verified"] == {"boot_b": "not verifiable"}


def test_comparing_writes_nothing(ar1: Maker) -> None:
    b = ar1("fastboot")
    b.fastboot(boot(b), restart=False)
    before = b.ar1.storage.written_bytes
    assert b.fastboot(boot(b), verify_only=True).outcome == "verified"
    with pytest.raises(VerificationFailed, match="boot_b does not hold what is in the file"):
        b.fastboot(file(b.folder, "boot.img", noise(500_000, 9)), verify_only=True)
    assert b.ar1.storage.written_bytes == before and b.ar1.mode == "fastboot"


def test_comparing_where_nothing_can_be_proved_is_no_success(ar1: Maker) -> None:
    b = ar1("fastboot", quirks=("no_digest",))
    with pytest.raises(DeviceRefused, match="cannot prove what boot_b holds"):
        b.fastboot(boot(b), verify_only=True)
