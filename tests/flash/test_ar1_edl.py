"""Flash the AR1 in emergency download: sources of other tools, plan, digests, faults of ROM and programmer."""

from __future__ import annotations

import json
import struct
import threading
from pathlib import Path

import pytest

from quarkctl.errors import DeviceRefused, InputWrong, LinkError, QuarkError, UsageWrong, VerificationFailed
from quarkctl.flash import edl, edl_device, firehose
from quarkctl.flash.ar1_commands import backup, chip_info, ramdump, tables
from quarkctl.flash.ar1_image import Image
from quarkctl.flash.journal import Journal
from quarkctl.formats.sahara import Region
from quarkctl.sim.ar1.programmer import Programmer
from tests.ar1 import Bench, Maker, file, noise, rawprogram

BOOT = noise(500_000)
MIB = 1 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where a device is silent is anything waited for."""
    monkeypatch.setattr(firehose, "GREETING_S", 0.05)


def boot_xml(b: Bench, **row: object) -> Path:
    file(b.folder, "boot.img", BOOT)
    return rawprogram(b.folder, [{"filename": "boot.img", "label": "boot_a", **row}])


def written(b: Bench) -> bool:
    return b.stored("boot_a", len(BOOT)) == BOOT


#: Misbehaviour that must not be noticed at all.
HARMLESS = [
    "zlp_stalls", "reads_32", "sahara_v3", "done_pending", "reads_twice", "late_logs", "unescaped_logs",
    "joined_documents", "split_documents", "log_flood", "small_payload", "odd_payload", "no_digest", "no_command_mode",
]  # fmt: skip


@pytest.mark.parametrize("quirk", HARMLESS)
def test_roms_and_programmers_that_bend_the_protocol_are_flashed(ar1: Maker, quirk: str) -> None:
    b = ar1("edl", quirks=(quirk,))
    result = b.edl(boot_xml(b))
    assert written(b) and b.ar1.wait_for("system")
    how = "verified by read back" if quirk == "no_digest" else "verified by digest"
    assert result.facts["verified"] == {"boot_a": how}


def test_a_programmer_that_says_first_what_it_does_hashes_while_the_host_does(
    ar1: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edl, "_EARLY_BYTES", 0)
    b = ar1("edl")
    begun = threading.Event()
    theirs, ours = b.ar1.storage.digest, Image.digest

    def on_the_device(*where: int) -> bytes:
        begun.set()
        return theirs(*where)

    def on_the_host(image: Image, offset: int, size_bytes: int, *, pad_to: int = 0) -> bytes:
        assert begun.wait(20.0)
        return ours(image, offset, size_bytes, pad_to=pad_to)

    monkeypatch.setattr(b.ar1.storage, "digest", on_the_device)
    monkeypatch.setattr(Image, "digest", on_the_host)
    assert b.edl(boot_xml(b)).facts["verified"] == {"boot_a": "verified by digest"}


def test_a_small_image_is_hashed_before_the_first_step(ar1: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    b = ar1("edl")
    order: list[str] = []
    ours, step = Image.digest, edl.Session.do
    monkeypatch.setattr(Image, "digest", lambda *a, **k: order.append("hash") or ours(*a, **k))
    monkeypatch.setattr(edl.Session, "do", lambda *a: order.append(a[1].name) or step(*a))
    assert b.edl(boot_xml(b)).facts["verified"] == {"boot_a": "verified by digest"}
    assert order[0] == "hash" and order.count("hash") == 1


EMMC = {"sector_bytes": 512, "memory": "emmc", "lun_bytes": (64 << 20,), "layout": {0: [("boot_a", 1 << 20)]}}


@pytest.mark.parametrize(
    "settings",
    [{"packet_bytes": 1024}, EMMC, {**EMMC, "memory": "nvme"}, {"memory": "nand"}, {"memory": "spinor"}],
)
def test_super_speed_and_every_kind_of_memory_are_flashed(ar1: Maker, settings: dict[str, object]) -> None:
    b = ar1("edl", **settings)
    file(b.folder, "boot.img", BOOT)
    b.edl(f"{b.folder / 'boot.img'}@boot_a", memory=str(settings.get("memory", "ufs")))
    assert written(b)


def test_an_image_finds_its_partition_in_the_tables_of_the_device(ar1: Maker) -> None:
    b = ar1("edl")
    b.edl(f"{file(b.folder, 'x.bin', BOOT)}@xbl_a", f"{file(b.folder, 'y.bin', BOOT)}@0/boot_a", restart=False)
    assert written(b) and b.stored("xbl_a", len(BOOT)) == BOOT and b.ar1.remembered.bootable_lun == 1


def test_contents_xml_and_flashmap_lead_to_the_same_bytes(ar1: Maker) -> None:
    b = ar1("edl")
    boot_xml(b)
    (b.folder / "contents.xml").write_text(
        f"""<contents><builds_flat><build><linux_root_path>./</linux_root_path>
        <partition_file storage_type="ufs">
        <file_name>rawprogram0.xml</file_name><file_path>${{x:.}}</file_path></partition_file>
        <device_programmer><file_name>{b.programmer.name}</file_name><file_path>.</file_path></device_programmer>
        </build></builds_flat></contents>"""
    )
    b.flash(edl, b.folder / "contents.xml")
    assert written(b)
    b.ar1.enter("edl")
    b.ar1.storage.erase(0, 6 * 4096, 1 << 20)
    layout = {
        "name": "x",
        "programmer": [b.programmer.name],
        "programmable": [{"memory": "ufs", "slot": 0, "files": ["rawprogram0.xml"]}],
    }
    file(
        b.folder,
        "flashmap.json",
        json.dumps({"version": "1.1.0", "products": [{"name": "p", "layouts": [layout]}]}).encode(),
    )
    b.flash(edl, b.folder)
    assert written(b)


def test_sparse_extents_are_joined_and_holes_left_alone(ar1: Maker) -> None:
    b = ar1("edl")
    b.ar1.storage.write(0, 6 * 4096, b"o" * 5 * 4096)
    chunks = b"".join(
        struct.pack("<2H2I", 0xCAC1, 0, 1, 12 + 4096) + bytes([65 + n]) * 4096 + struct.pack("<2H2II", 0xCAC2, 0, 1, 16, n)
        for n in range(2)
    ) + struct.pack("<2H2I", 0xCAC3, 0, 1, 12)  # fmt: skip
    image = struct.pack("<I4H4I", 0xED26FF3A, 1, 0, 28, 12, 4096, 5, 5, 0) + chunks
    file(b.folder, "s.simg", image)
    b.edl(rawprogram(b.folder, [{"filename": "s.simg", "label": "boot_a", "sparse": "true"}]), restart=False)
    expected = b"A" * 4096 + bytes(4096) + b"B" * 4096 + struct.pack("<I", 1) * 1024 + b"o" * 4096
    assert b.stored("boot_a", 5 * 4096) == expected


def test_what_is_there_already_is_skipped_by_digest(ar1: Maker) -> None:
    b = ar1("edl")
    big = file(b.folder, "boot.img", noise(1 << 20))
    xml = rawprogram(b.folder, [{"filename": "boot.img", "label": "boot_a"}])
    b.edl(xml, restart=False)
    before = b.ar1.storage.written_bytes
    assert b.edl(xml, restart=False).facts["skipped_bytes"] == big.stat().st_size
    assert b.ar1.storage.written_bytes == before


def test_only_the_part_that_an_earlier_flash_did_not_reach_is_written(
    ar1: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edl, "WINDOW_BYTES", 2 << 20)
    monkeypatch.setattr(edl, "_FINE_BYTES", 1 << 20)
    b = ar1("edl")
    image = f"{file(b.folder, 'x.bin', noise(4 << 20))}@super"
    b.edl(image, restart=False)
    place = b.stored("super", 4 << 20)
    assert place == noise(4 << 20)
    from quarkctl.sim.ar1.partitions import Disk

    where = Disk(b.ar1.storage).partitions["super"]
    b.ar1.storage.erase(where.lun, where.offset + (3 << 20) + 4096, 8192)
    result = b.edl(image, restart=False)
    assert result.facts["skipped_bytes"] == 3 << 20 and b.stored("super", 4 << 20) == noise(4 << 20)


@pytest.mark.parametrize("quirk", ["", "no_digest"])
def test_comparing_writes_nothing(ar1: Maker, quirk: str) -> None:
    b = ar1("edl", quirks=(quirk,) if quirk else ())
    file(b.folder, "boot.img", noise(100_000))
    xml = rawprogram(b.folder, [{"filename": "boot.img", "label": "boot_a"}])
    b.edl(xml, restart=False)
    before = b.ar1.storage.written_bytes
    assert b.edl(xml, verify_only=True).outcome == "verified"
    file(b.folder, "boot.img", noise(100_000, 9))
    with pytest.raises(VerificationFailed, match="boot_a does not hold what is in the file"):
        b.edl(xml, verify_only=True)
    assert b.ar1.storage.written_bytes == before


def test_a_programmer_that_we_left_running_is_used_again(ar1: Maker) -> None:
    b = ar1("edl")
    b.edl(boot_xml(b), restart=False)
    assert b.edl(boot_xml(b), restart=False, force=True).outcome == "done"


# --- erasing ----------------------------------------------------------------------------------------------------------


def erase(b: Bench, attributes: str, name: str = "rawprogram_erase.xml") -> Path:
    return file(b.folder, name, f"<data><erase {attributes}/></data>".encode())


def commands(b: Bench, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[tuple[str, str]]:
    """What its programmer will be told: command and sectors."""
    told: list[tuple[str, str]] = []
    for name in names:
        original = getattr(Programmer, f"_do_{name}")

        def do(self: Programmer, a: dict[str, str], name: str = name, original: object = original) -> None:
            told.append((name, f"{a.get('start_sector', '')}+{a.get('num_partition_sectors', '')}"))
            original(self, a)  # type: ignore[operator]

        monkeypatch.setattr(Programmer, f"_do_{name}", do)
    return told


def test_what_the_files_erase_and_write_happens_in_their_order(ar1: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    b = ar1("edl")
    told = commands(b, monkeypatch, "erase", "program")
    place = 'num_partition_sectors="2" start_sector'
    sources = [
        erase(b, f'{place}="6"', "one.xml"), boot_xml(b), erase(b, f'{place}="900"', "two.xml"),
        f"{file(b.folder, 'x.img', noise(4096))}@0:1000", erase(b, f'{place}="NUM_DISK_SECTORS-9."', "three.xml"),
    ]  # fmt: skip
    plan = b.plan(edl, *sources, programmer=str(b.programmer))
    assert plan.step_names == (
        "erase 0:6+2", "program boot_a", "erase 0:900+2", "program 0:1000", "erase 0:NUM_DISK_SECTORS-9.+2", "restart",
    )  # fmt: skip
    b.edl(*sources)
    assert written(b)
    assert told == [("erase", "6+2"), ("program", "6+123"), ("erase", "900+2"), ("program", "1000+1"),
                    ("erase", "NUM_DISK_SECTORS-9.+2")]  # fmt: skip


@pytest.mark.parametrize("attributes", ["", 'num_partition_sectors="1" start_sector="128"'])
def test_an_erase_that_destroys_what_was_written_before_it_is_refused(ar1: Maker, attributes: str) -> None:
    b = ar1("edl")
    error = refused(
        b, InputWrong, "would destroy boot_a, which is written before it", boot_xml(b), erase(b, attributes)
    )
    assert "before that <program>" in error.hint


def test_a_flash_that_begins_with_an_erase_goes_on_without_losing_what_it_wrote(
    ar1: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = ar1("edl")
    for name in ("a.img", "b.img"):
        file(b.folder, name, noise(2 * MIB))
    rows = [{"filename": "a.img", "label": "a", "start_sector": 1000, "num_partition_sectors": 512},
            {"filename": "b.img", "label": "b", "start_sector": 2000, "num_partition_sectors": 512}]  # fmt: skip
    sources = [erase(b, 'physical_partition_number="0"'), rawprogram(b.folder, rows)]
    b.ar1.storage.bad.add((0, 2400))
    with pytest.raises(DeviceRefused, match="write error"):
        b.edl(*sources)
    b.ar1.storage.bad.clear()
    b.ar1.storage.write(0, 50 * 4096, b"somebody else was here")
    told = commands(b, monkeypatch, "erase")
    result = b.edl(*sources)
    assert told == [("erase", "0+1000"), ("erase", "1512+488"), ("erase", "2512+13872")]
    assert result.facts["skipped_bytes"] == 2 * MIB and b.ar1.storage.read(0, 50 * 4096, 4096) == bytes(4096)
    assert b.ar1.storage.read(0, 1000 * 4096, 2 * MIB) == b.ar1.storage.read(0, 2000 * 4096, 2 * MIB) == noise(2 * MIB)
    told.clear()
    b.ar1.enter("edl")
    b.edl(*sources)
    assert told == [("erase", "+")]  # a flash of its own does what the files say


# --- refusals before the first byte -----------------------------------------------------------------------------------


def refused(b: Bench, kind: type[QuarkError], words: str, *sources: str | Path, **wish: object) -> QuarkError:
    before = b.ar1.storage.written_bytes
    with pytest.raises(kind, match=words) as caught:
        b.edl(*sources, **wish)
    assert b.ar1.storage.written_bytes == before
    return caught.value


def test_an_image_larger_than_its_place_is_refused(ar1: Maker) -> None:
    b = ar1("edl")
    refused(b, InputWrong, "boot_a holds 409600", boot_xml(b, num_partition_sectors=100))


def test_a_place_behind_the_end_of_the_lun_is_refused(ar1: Maker) -> None:
    b = ar1("edl")
    refused(b, InputWrong, "ends at sector 16507 of LUN 0, which has 16384", boot_xml(b, start_sector=16384))


def test_files_for_another_sector_size_are_refused(ar1: Maker) -> None:
    b = ar1("edl")
    error = refused(
        b,
        InputWrong,
        "sectors of 512 bytes, the device has 4096",
        boot_xml(b, SECTOR_SIZE_IN_BYTES=512, num_partition_sectors=4096),
    )
    assert "UFS" in error.hint


def test_the_devices_own_words_tell_of_a_wrong_sector_size(ar1: Maker) -> None:
    b = ar1("edl", quirks=("no_storage_info",))
    refused(
        b,
        DeviceRefused,
        r"sector size defined in XML \(512\) different",
        boot_xml(b, SECTOR_SIZE_IN_BYTES=512, num_partition_sectors=4096),
    )


def test_an_erase_at_the_end_of_a_lun_of_unknown_size_is_refused(ar1: Maker) -> None:
    b = ar1("edl", quirks=("no_storage_info",))
    xml = erase(b, 'start_sector="NUM_DISK_SECTORS-9." num_partition_sectors="2" SECTOR_SIZE_IN_BYTES="4096"')
    refused(b, InputWrong, "does not tell the size of LUN 0", xml)


def test_the_wrong_kind_of_memory_is_told_by_the_device(ar1: Maker) -> None:
    b = ar1("edl")
    error = refused(b, DeviceRefused, "storage type emmc is not present", boot_xml(b), memory="emmc")
    assert "--memory" in error.hint


def test_images_that_overlap_are_refused(ar1: Maker) -> None:
    b = ar1("edl")
    file(b.folder, "boot.img", BOOT)
    rows = [{"filename": "boot.img", "label": "one"}, {"filename": "boot.img", "label": "two", "start_sector": 100}]
    refused(b, InputWrong, "both write sector 100", rawprogram(b.folder, rows))


def test_a_lun_that_is_not_there_is_refused(ar1: Maker) -> None:
    b = ar1("edl")
    refused(b, InputWrong, "LUN 7, the device has 3|goes to LUN 7", boot_xml(b, physical_partition_number=7))


def test_a_missing_file_is_told_without_a_device(ar1: Maker) -> None:
    b = ar1("edl")
    refused(b, InputWrong, "nothing.img", rawprogram(b.folder, [{"filename": "nothing.img"}]))


def test_partitions_with_fuses_need_an_explicit_word(ar1: Maker) -> None:
    b = ar1("edl")
    refused(b, UsageWrong, "secdata holds fuses", boot_xml(b, label="secdata"))


def test_a_device_without_a_programmer_asks_for_one_that_is_not_beside_the_files(ar1: Maker) -> None:
    b = ar1("edl")
    xml = boot_xml(b)
    with pytest.raises(InputWrong, match="waits for a programmer"):
        b.flash(edl, xml)
    assert b.programmer.parent == xml.parent
    b.flash(edl, xml)
    assert written(b)


# --- what devices do --------------------------------------------------------------------------------------------------


def test_a_programmer_with_the_wrong_signature_is_told(ar1: Maker) -> None:
    b = ar1("edl", quirks=("wrong_programmer",))
    error = refused(b, DeviceRefused, "image authentication failed", boot_xml(b))
    assert "not signed for this device" in error.hint


def test_a_programmer_for_another_device_is_no_programmer(ar1: Maker) -> None:
    b = ar1("edl")
    file(b.folder, b.programmer.name, b"not an ELF file" * 100)
    refused(b, DeviceRefused, "refused image 13: invalid ELF header", boot_xml(b))


def test_a_write_that_is_refused_in_the_middle_is_closed_properly(ar1: Maker) -> None:
    b = ar1("edl", quirks=("early_nak",))
    with pytest.raises(DeviceRefused, match="write protected"):
        b.edl(boot_xml(b))
    b.ar1.settings.quirks.clear()
    b.edl(boot_xml(b))
    assert written(b)


def test_a_stall_in_the_middle_of_data_is_told_and_the_next_try_succeeds(ar1: Maker) -> None:
    b = ar1("edl", quirks=("stalls", "raw_survives"))
    with pytest.raises(LinkError, match="stalled its endpoint"):
        b.edl(boot_xml(b))
    b.edl(boot_xml(b))
    assert written(b)


def test_bad_storage_is_told_in_the_words_of_the_device(ar1: Maker) -> None:
    b = ar1("edl")
    b.ar1.storage.bad.add((0, 50))
    with pytest.raises(DeviceRefused, match="write error at sector 50") as caught:
        b.edl(boot_xml(b))
    assert "worn out" in caught.value.hint and "write error at sector 50" in b.told()


def test_what_the_device_holds_after_the_write_decides(ar1: Maker) -> None:
    b = ar1("edl", quirks=("digest_lies",))
    with pytest.raises(VerificationFailed, match="boot_a does not hold what is in the file"):
        b.edl(boot_xml(b))


def test_a_hello_that_somebody_else_took_is_told(ar1: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    b = ar1("edl", quirks=("hello_once",))
    b.ar1._hello_said = True
    error = refused(b, LinkError, "says nothing, and it is not known", boot_xml(b))
    assert "power-cycle" in error.hint


def test_an_open_write_of_another_tool_is_never_fed(ar1: Maker) -> None:
    """Without a journal nothing is sent at all: whatever it is would become flash data."""
    b = ar1("edl", quirks=("raw_survives",))
    b.ar1.points.arm(20, b.ar1.unplug)
    with pytest.raises(QuarkError):
        b.edl(boot_xml(b))
    Journal(b.way("usb").identity).end()
    edl_device.forget_programmer(b.way("usb").identity)
    b.ar1.points.arm(0, lambda: None)
    b.ar1.replug()
    refused(b, LinkError, "says nothing", boot_xml(b))


def test_a_programmer_that_stops_answering_is_given_up(ar1: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    b = ar1("edl")
    monkeypatch.setattr(firehose, "START_S", 0.2)
    b.ar1.storage.pace = lambda _: b.ar1.port.device.outgoing.halt() if b.ar1.port.device else None
    with pytest.raises(LinkError, match=r"stalled its endpoint|did not answer"):
        b.edl(boot_xml(b))


def test_two_devices_with_the_same_serial_number_are_told_apart_by_their_ports(ar1: Maker) -> None:
    from quarkctl.errors import DeviceAmbiguous
    from quarkctl.link.usb import pick, scan
    from quarkctl.link.usbip import Backend
    from quarkctl.sim.usb_ip import UsbIpServer

    first, second = ar1("edl"), ar1("edl")
    second.ar1.port.number = 2
    server = UsbIpServer([first.ar1.port, second.ar1.port])
    try:
        found = scan(Backend(*server.address))
        with pytest.raises(DeviceAmbiguous, match="2 devices fit"):
            pick(found, "")
        assert pick(found, "1-2").port == "1-2"
    finally:
        server.close()


# --- beside flashing --------------------------------------------------------------------------------------------------


def test_the_boot_rom_says_who_it_is(ar1: Maker) -> None:
    for quirks in ((), ("sahara_v3",)):
        b = ar1("edl", quirks=quirks)
        info = chip_info(b.way("usb"))
        assert info["serial"] == b.ar1.settings.chip_serial and info["chip_id"] == 0x001740E1
        assert len(str(info["key_hash"])) == 96


def test_the_memory_of_a_crashed_system_is_saved(ar1: Maker) -> None:
    for quirks in ((), ("reads_32",)):
        b = ar1("dump", quirks=quirks)
        b.ar1.memory = [(Region("DDR", "DDR.BIN", 0x80000000, 700_000, 1), noise(700_000))]
        ramdump(b.way("usb"), b.folder / "dump", [], b.events.append)
        assert (b.folder / "dump" / "DDR.BIN").read_bytes() == noise(700_000)
        assert b.ar1.wait_for("system")


def test_a_lun_is_backed_up_and_restored(ar1: Maker) -> None:
    b = ar1("edl")
    b.edl(boot_xml(b), restart=False)
    device = edl_device.open_device(
        b.way("usb"), {}, "ufs", lambda _: None, Journal(b.way("usb").identity), lambda _: None
    )
    try:
        device.find_sector_size(0)
        assert {t["name"] for t in tables(device)} >= {"boot_a", "xbl_a"}
        saved = backup(device, 0, b.folder / "lun0.img", b.events.append, "x")
    finally:
        device.link.close()
    assert saved["sha256"] == b.ar1.storage.digest(0, 0, b.ar1.storage.lun_bytes[0]).hex()
    b.ar1.storage.erase(0, 0, b.ar1.storage.lun_bytes[0])
    b.edl(f"{b.folder / 'lun0.img'}@0:0", restart=False)
    assert b.ar1.storage.digest(0, 0, b.ar1.storage.lun_bytes[0]).hex() == saved["sha256"]


def nand(b: Bench, **changed: object) -> Path:
    """As tools write it for NAND, whose sectors are pages."""
    file(b.folder, "boot.img", noise(2 * MIB))
    row = {"filename": "boot.img", "label": "0:BOOT", "start_sector": 640, "num_partition_sectors": 640,
           "PAGES_PER_BLOCK": 64, "last_sector": 1279, **changed}  # fmt: skip
    xml = rawprogram(b.folder, [row])
    erase = '<erase PAGES_PER_BLOCK="64" SECTOR_SIZE_IN_BYTES="4096" num_partition_sectors="640" ' \
            'physical_partition_number="0" start_sector="640"/>'  # fmt: skip
    xml.write_text(xml.read_text().replace("<data>", f"<data>{erase}"))
    return xml


def test_nand_is_erased_by_blocks_written_whole_and_read_back(ar1: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, str]]] = []
    for name in ("erase", "program"):
        original = getattr(Programmer, f"_do_{name}")

        def do(self: Programmer, a: dict[str, str], name: str = name, original: object = original) -> None:
            asked.append((name, dict(a)))
            original(self, a)  # type: ignore[operator]

        monkeypatch.setattr(Programmer, f"_do_{name}", do)
    b = ar1("edl", memory="nand")
    xml = nand(b)
    b.edl(xml, memory="nand", restart=False)
    result = b.edl(xml, memory="nand", restart=False)
    assert [name for name, _ in asked] == ["erase", "program"] * 2  # what is there already is not asked for
    assert all(a["PAGES_PER_BLOCK"] == "64" for _, a in asked) and asked[1][1]["last_sector"] == "1279"
    assert result.facts["verified"] == {"0:BOOT": "verified by read back"}
    assert b.ar1.storage.read(0, 640 * 4096, 2 * MIB) == noise(2 * MIB)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"start_sector": 650}, "begins inside of a block of 64 pages"),
        ({"last_sector": 1000}, "ends behind sector 1000"),
        ({"PAGES_PER_BLOCK": "x"}, "PAGES_PER_BLOCK at offset 0x[0-9a-f]+ is 'x'"),
        ({"PAGES_PER_BLOCK": 7}, "begins inside of a block of 7 pages"),
    ],
)
def test_nand_outside_of_its_blocks_is_refused(ar1: Maker, changed: dict[str, object], match: str) -> None:
    b = ar1("edl", memory="nand")
    before = b.ar1.storage.written_bytes
    with pytest.raises(InputWrong, match=match):
        b.edl(nand(b, **changed), memory="nand")
    assert b.ar1.storage.written_bytes == before


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        ('physical_partition_number="9"', "all sectors from 0 of LUN 9"),
        ('num_partition_sectors="99999999" start_sector="6"', "99999999 sectors from 6 of LUN 0"),
        (
            'num_partition_sectors="4" start_sector="6" SECTOR_SIZE_IN_BYTES="512"',
            "sectors of 512 bytes, the device has",
        ),
        ('num_partition_sectors="-4"', "num_partition_sectors at offset 0x[0-9a-f]+ is '-4'"),
        ('num_partition_sectors="8" start_sector="0" PAGES_PER_BLOCK="64"', "no whole blocks of 64 pages"),
    ],
)
def test_what_cannot_be_erased_is_refused_before_anything_is(ar1: Maker, attributes: str, match: str) -> None:
    b = ar1("edl")
    xml = file(b.folder, "rawprogram0.xml", f"<data><erase {attributes}/></data>".encode())
    with pytest.raises(InputWrong, match=match):
        b.edl(xml)
