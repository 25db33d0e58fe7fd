"""Digest tables: made from files alone, taken by a device that takes nothing else, and byte by byte what qdl would send."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import DeviceRefused, InputWrong, LinkError
from quarkctl.flash import ar1_commands, edl, edl_sources, vip
from quarkctl.formats import firehose
from quarkctl.formats import vip as tables
from tests.ar1 import Bench, Maker, file, noise, rawprogram

MIB = 1 << 20


def xml(b: Bench, count: int = 30) -> Path:
    """Small images, of which the 26th is two pieces long: a table has to come in the middle of its data."""
    rows = []
    for number in range(count):
        size = MIB + 4096 if number == 25 else 4096 - number
        file(b.folder, f"i{number}.bin", noise(size, number))
        rows.append({"filename": f"i{number}.bin", "label": f"p{number}", "start_sector": 256 + 300 * number,
                     "num_partition_sectors": 257})  # fmt: skip
    return rawprogram(b.folder, rows)


def made(b: Bench, *sources: Path, memory: str = "") -> Path:
    """Tables in a folder, the first one as if it were signed."""
    folder = b.folder / "vip"
    told = ar1_commands.vip_tables([str(s) for s in sources], folder, memory, MIB, restart=True)
    (folder / tables.SIGNED_NAME).write_bytes(Path(told["to_sign"]).read_bytes())
    return folder


def test_tables_of_fifty_five_packets_are_as_qdl_makes_them() -> None:
    digests = [hashlib.sha256(bytes([n])).digest() for n in range(55)]
    found = tables.build(digests)
    last = digests[53] + digests[54] + b"\0"
    assert found.to_sign == b"".join(digests[:53]) + hashlib.sha256(last).digest() and len(found.to_sign) == 1728
    assert found.chained == (last,)
    assert tables.build(digests[:53]).files() == {"DigestsToSign.bin": b"".join(digests[:53])}
    several = tables.build([digests[0]] * (53 + 255 + 255))
    assert [len(t) for t in several.chained] == [256 * 32, 255 * 32 + 1]
    assert several.chained[0][-32:] == hashlib.sha256(several.chained[1]).digest()


def test_more_packets_than_tables_hold_are_refused() -> None:
    with pytest.raises(InputWrong, match="8214 packets do not fit"):
        tables.build([bytes(32)] * (tables.PACKETS_MAX + 1))


def test_packets_are_those_of_the_files_in_order(ar1: Maker) -> None:
    b = ar1("edl")
    file(b.folder, "boot.img", b"\x55" * 5000)
    path = rawprogram(b.folder, [{"filename": "boot.img", "label": "xbl_a", "physical_partition_number": 1}])
    expected = [
        b'<?xml version="1.0"?>\n<data><configure MemoryName="ufs" MaxPayloadSizeToTargetInBytes="4096" Verbose="0" '
        b'ZlpAwareHost="1" SkipStorageInit="0"/></data>\n',
        b'<?xml version="1.0"?>\n<data><program SECTOR_SIZE_IN_BYTES="4096" num_partition_sectors="2" '
        b'physical_partition_number="1" start_sector="6" filename="boot.img"/></data>\n',
        b"\x55" * 4096,
        b"\x55" * 904 + bytes(3192),
        b'<?xml version="1.0"?>\n<data><setbootablestoragedrive value="1"/></data>\n',
        b'<?xml version="1.0"?>\n<data><power value="reset" DelayInSeconds="10"/></data>\n',
    ]
    work = edl_sources.read([str(path)])
    assert vip.digests(vip.commands(work, "ufs", 4096), 4096) == [hashlib.sha256(p).digest() for p in expected]
    assert vip.tables(work, "ufs", 4096) == vip.tables(work, "ufs", 4096)
    work.close()


def erase_and_program(b: Bench) -> Path:
    """As tools write NAND: a block is erased, then written, then another one is erased."""
    file(b.folder, "boot.img", b"\x55" * 5000)
    place = 'SECTOR_SIZE_IN_BYTES="4096" PAGES_PER_BLOCK="64" physical_partition_number="0"'
    return file(b.folder, "rawprogram_nand.xml", (
        f'<?xml version="1.0" ?><data><erase {place} num_partition_sectors="128" start_sector="256"/>'
        f'<program {place} filename="boot.img" label="boot" num_partition_sectors="128" start_sector="256" '
        f'last_sector="383" sparse="false"/><erase {place} num_partition_sectors="64" start_sector="896"/></data>'
    ).encode())  # fmt: skip


def test_erasing_and_the_attributes_of_nand_stand_in_tables_where_qdl_sends_them(ar1: Maker) -> None:
    b = ar1("edl")
    head = b'<?xml version="1.0"?>\n<data>'
    expected = [
        head + b'<erase SECTOR_SIZE_IN_BYTES="4096" physical_partition_number="0" num_partition_sectors="128" '
        b'start_sector="256" PAGES_PER_BLOCK="64"/></data>\n',
        head + b'<program SECTOR_SIZE_IN_BYTES="4096" num_partition_sectors="2" physical_partition_number="0" '
        b'start_sector="256" filename="boot.img" PAGES_PER_BLOCK="64" last_sector="383"/></data>\n',
        b"\x55" * 5000 + bytes(3192),
        head + b'<erase SECTOR_SIZE_IN_BYTES="4096" physical_partition_number="0" num_partition_sectors="64" '
        b'start_sector="896" PAGES_PER_BLOCK="64"/></data>\n',
    ]
    work = edl_sources.read([str(erase_and_program(b))])
    found = vip.digests(vip.commands(work, "nand", restart=False))
    assert found[1:] == [hashlib.sha256(p).digest() for p in expected]
    work.close()


def test_tables_are_for_the_order_of_the_documents(ar1: Maker) -> None:
    b = ar1("edl")
    file(b.folder, "one.img", b"1")
    first = rawprogram(b.folder, [{"filename": "one.img"}])
    place = b'SECTOR_SIZE_IN_BYTES="4096" physical_partition_number="1" start_sector="9"'
    patch = file(b.folder, "patch0.xml", b'<patches><patch ' + place + b' byte_offset="0" filename="DISK" '
                 b'size_in_bytes="4" value="1"/></patches>')  # fmt: skip
    second = file(b.folder, "rawprogram1.xml", b"<data><erase " + place + b' num_partition_sectors="1"/></data>')
    for sources, order in (
        ([first, patch, second], "program patch erase"),
        ([second, first, patch], "erase program patch"),
    ):
        work = edl_sources.read([str(s) for s in sources])
        assert [c.tag for c in vip.commands(work, "ufs", restart=False)][1:] == order.split()
        work.close()
    whole = file(b.folder, "erase.xml", b'<data><erase physical_partition_number="0"/></data>')
    with pytest.raises(InputWrong, match=r"would destroy one\.img"):
        ar1_commands.vip_tables([str(first), str(whole)], b.folder / "vip", "", MIB, restart=True)


def test_a_device_that_takes_only_listed_packets_is_erased(ar1: Maker) -> None:
    b = ar1("edl", quirks=("vip",), memory="nand")
    path = erase_and_program(b)
    b.ar1.storage.write(0, 256 * 4096, noise(128 * 4096))
    b.ar1.storage.write(0, 900 * 4096, noise(4096))
    b.flash(edl, path, programmer=str(b.programmer), vip_tables=str(made(b, path, memory="nand")), memory="nand")
    assert b.ar1.storage.read(0, 256 * 4096, 128 * 4096) == b"\x55" * 5000 + bytes(128 * 4096 - 5000)
    assert b.ar1.storage.read(0, 900 * 4096, 4096) == bytes(4096)


def test_a_device_that_takes_only_listed_packets_is_flashed(ar1: Maker) -> None:
    b = ar1("edl", quirks=("vip",))
    path = xml(b)
    result = b.flash(edl, path, programmer=str(b.programmer), vip_tables=str(made(b, path)))
    assert b.ar1.storage.read(0, (256 + 300 * 25) * 4096, MIB + 4096) == noise(MIB + 4096, 25)
    assert b.ar1.storage.read(0, 256 * 4096, 4096) == noise(4096, 0)
    assert b.ar1.wait_for("system") and result.plan.facts["tables"] == 2


def test_tables_for_other_files_are_told_before_the_device_is_touched(ar1: Maker) -> None:
    b = ar1("edl", quirks=("vip",))
    path = xml(b, 2)
    folder = made(b, path)
    file(b.folder, "i1.bin", noise(4096, 99))
    before = b.ar1.storage.written_bytes
    with pytest.raises(InputWrong, match="for other files"):
        b.flash(edl, path, programmer=str(b.programmer), vip_tables=str(folder))
    assert b.ar1.storage.written_bytes == before


def test_a_packet_that_is_not_listed_is_refused_by_the_device(ar1: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    b = ar1("edl", quirks=("vip",))
    path = xml(b, 2)
    folder = made(b, path)
    file(b.folder, "i1.bin", noise(4096, 99))
    monkeypatch.setattr(vip.Signed, "check", lambda *_: None)
    with pytest.raises(DeviceRefused, match="digest"):
        b.flash(edl, path, programmer=str(b.programmer), vip_tables=str(folder))
    with pytest.raises(LinkError):  # it takes nothing more until its power was off
        b.flash(edl, path, programmer=str(b.programmer), vip_tables=str(folder))


def test_places_that_only_the_device_knows_cannot_stand_in_tables(ar1: Maker) -> None:
    b = ar1("edl")
    with pytest.raises(InputWrong, match="no place and sector size of its own"):
        ar1_commands.vip_tables([f"{file(b.folder, 'x.bin', b'x')}@boot_a"], b.folder / "vip", "", MIB, restart=True)


def libxml2() -> ctypes.CDLL:
    name = ctypes.util.find_library("xml2")
    assert name, "libxml2 comes with qdl"
    library = ctypes.CDLL(name)
    for function in ("xmlNewDoc", "xmlNewNode", "xmlNewChild", "xmlSetProp"):
        getattr(library, function).restype = ctypes.c_void_p
    return library


words = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufffe\uffff"), max_size=30)


@given(st.lists(words, min_size=1, max_size=5))
def test_documents_are_byte_by_byte_those_of_libxml2(values: list[str]) -> None:
    library = libxml2()
    pointer = ctypes.c_void_p
    document = pointer(library.xmlNewDoc(b"1.0"))
    root = pointer(library.xmlNewNode(None, b"data"))
    library.xmlDocSetRootElement(document, root)
    node = pointer(library.xmlNewChild(root, None, b"program", None))
    for number, value in enumerate(values):
        library.xmlSetProp(node, f"a{number}".encode(), value.encode())
    text, size = ctypes.c_char_p(), ctypes.c_int()
    library.xmlDocDumpMemory(document, ctypes.byref(text), ctypes.byref(size))
    library.xmlFreeDoc(document)
    assert firehose.build("program", {f"a{n}": v for n, v in enumerate(values)}, pad=False) == text.value
