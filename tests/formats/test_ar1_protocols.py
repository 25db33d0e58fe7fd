"""fastboot, Sahara, Firehose and USB/IP as bytes: what is built is read back, and no bytes of a device break a reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import ProtocolError, UsageWrong
from quarkctl.formats import fastboot, firehose, sahara, usbip
from quarkctl.formats.fastboot import Kind, Reply, UdpId, UdpPacket
from quarkctl.formats.firehose import Documents
from quarkctl.formats.sahara import LAYOUTS, Client, Command, Region

# --- fastboot ---------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_packet_is_a_reply_or_a_protocol_error(packet: bytes) -> None:
    try:
        reply = fastboot.parse_reply(packet)
    except ProtocolError:
        return
    assert packet[:4].decode() == reply.kind.value and len(reply.text) <= fastboot.REPLY_MAX


@given(
    st.sampled_from(list(Kind)),
    st.text(st.characters(codec="ascii", min_codepoint=32), max_size=200),
    st.integers(0, 2**32 - 1),
)
def test_a_reply_is_read_as_it_was_built(kind: Kind, text: str, size: int) -> None:
    read = fastboot.parse_reply(fastboot.build_reply(Reply(kind, text, size)))
    assert read.kind is kind
    assert read.size_bytes == size if kind is Kind.DATA else read.text == text


@pytest.mark.parametrize("text", ["", "flash:boot\0", "getvar:\n", "x" * 65, "flash:bööt"])
def test_a_command_that_a_boot_loader_could_misread_is_refused(text: str) -> None:
    with pytest.raises(UsageWrong):
        fastboot.build_command(text)


@pytest.mark.parametrize(("text", "value"), [("0x10000000", 1 << 28), (" 0x4000", 0x4000), ("4000", 4000)])
def test_numbers_come_in_every_shape(text: str, value: int) -> None:
    assert fastboot.parse_number(text) == value


def test_sizes_of_partitions_without_a_prefix_are_hexadecimal() -> None:
    assert fastboot.parse_number("1f00", bare_base=16) == 0x1F00


def test_the_last_colon_separates_a_variable_from_its_value() -> None:
    lines = ["partition-size:boot_a: 0x4000000", "has-slot:boot:yes", "all: Done!", "no colon here"]
    assert fastboot.parse_variables(lines) == {
        "partition-size:boot_a": "0x4000000",
        "has-slot:boot": "yes",
        "all": "Done!",
    }


@given(st.sampled_from(list(UdpId)), st.integers(0, 0xFFFF), st.binary(max_size=600), st.booleans())
def test_a_udp_packet_is_read_as_it_was_built(kind: UdpId, sequence: int, data: bytes, continued: bool) -> None:
    packet = UdpPacket(kind, sequence, data, continued)
    assert fastboot.parse_udp(fastboot.build_udp(packet)) == packet


@given(st.binary(max_size=20))
def test_any_datagram_is_read_or_ignored(datagram: bytes) -> None:
    packet = fastboot.parse_udp(datagram)
    assert packet is None or packet.data == datagram[4:]


def test_something_else_on_the_port_is_no_fastboot() -> None:
    with pytest.raises(ProtocolError, match="not fastboot over TCP"):
        fastboot.parse_tcp_hello(b"SSH-")


# --- Sahara -----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(LAYOUTS)), st.binary(max_size=8))
def test_a_sahara_packet_is_read_as_it_was_built_and_the_rest_is_kept(command: Command, rest: bytes) -> None:
    fields = {name: 40 + n for n, name in enumerate(LAYOUTS[command][1])}
    packet = sahara.build(command, **fields)
    parsed = sahara.parse(packet + rest)
    assert parsed and parsed[0].command is command and dict(parsed[0].fields) == fields and parsed[1] == rest
    assert all(sahara.parse(packet[:n]) is None for n in range(len(packet)))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_sahara_packet_too_few_or_a_protocol_error(data: bytes) -> None:
    try:
        parsed = sahara.parse(data)
    except ProtocolError:
        return
    assert parsed is None or len(parsed[1]) < len(data)


def test_hello_is_what_the_specification_says() -> None:
    packet = sahara.build(Command.HELLO, version=2, compatible=1, limit_bytes=1024, mode=0)
    assert packet.hex() == "010000003000000002000000010000000004000000000000" + "00" * 24


@pytest.mark.parametrize("wide", [True, False])
def test_memory_regions_are_read_as_they_were_built(wide: bool) -> None:
    regions = [Region("DDR CS0", "DDRCS0.BIN", 0x80000000, 4096, 1), Region("x" * 20, "y" * 20, 1, 2, 3)]
    assert sahara.parse_regions(sahara.build_regions(regions, wide=wide), wide=wide) == regions


@pytest.mark.parametrize("name", ["../etc/passwd", "..", "", "a/b", "a\\b", "a\nb"])
def test_a_memory_region_that_would_leave_its_folder_is_refused(name: str) -> None:
    table = sahara.build_regions([Region("x", name, 0, 1, 0)], wide=True)
    with pytest.raises(ProtocolError, match="not the name of a file"):
        sahara.parse_regions(table, wide=True)


@given(st.binary(max_size=300), st.booleans())
def test_any_table_of_regions_is_read_or_refused(table: bytes, wide: bool) -> None:
    try:
        regions = sahara.parse_regions(table, wide=wide)
    except ProtocolError:
        return
    assert all("/" not in r.file_name for r in regions)


@given(st.dictionaries(st.sampled_from(list(Client)), st.binary(max_size=200)))
def test_any_answers_of_command_mode_are_understood_or_left_out(answers: dict[Client, bytes]) -> None:
    info = sahara.parse_chip_info(answers)
    assert (info.serial is None) == (len(answers.get(Client.SERIAL, b"")) < 4)


def test_a_key_hash_that_is_repeated_is_told_once() -> None:
    assert sahara.parse_chip_info({Client.KEY_HASH: b"h" * 48 * 3}).key_hash in (b"h" * 32, b"h" * 48)
    one = bytes(range(48))
    assert sahara.parse_chip_info({Client.KEY_HASH: one * 3}).key_hash == one


# --- Firehose ---------------------------------------------------------------------------------------------------------


def test_a_command_has_exactly_these_bytes() -> None:
    document = firehose.build("program", {"SECTOR_SIZE_IN_BYTES": 4096, "label": 'a"<b'})
    assert document == (
        b'<?xml version="1.0"?>\n<data><program SECTOR_SIZE_IN_BYTES="4096" label="a&quot;&lt;b"/></data>\n'
    )


@given(st.integers(0, 600))
def test_a_document_never_ends_where_its_transfer_would_not(size: int) -> None:
    assert len(firehose.build("nop", {"x": "y" * size})) % 512


def test_documents_are_found_however_the_stream_is_cut() -> None:
    stream = b'<?xml version="1.0" ?><data><log value="one"/></data>'
    stream += b'<data><response value="ACK" rawmode="true"/></data>raw bytes'
    for cut in range(len(stream)):
        documents = Documents()
        documents.feed(stream[:cut])
        found = list(iter(documents.next, None))
        documents.feed(stream[cut:])
        found += list(iter(documents.next, None))
        assert [e.tag for d in found for e in d] == ["log", "response"]
        assert found[1][0].ok and found[1][0].raw_follows
        assert documents.take_raw(100) == b"raw bytes"


def test_a_log_with_text_that_is_no_xml_is_read() -> None:
    (log,) = firehose.parse(b'<?xml version="1.0" ?><data><log value="ERROR: a < b & "c" failed" /></data>')
    assert log.text == 'ERROR: a < b & "c" failed'


@given(st.binary(max_size=400))
def test_any_document_is_read_without_an_error(document: bytes) -> None:
    assert isinstance(firehose.parse(document + b"</data>"), list)


def test_entities_never_grow() -> None:
    bomb = b'<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><data><log value="&b;"/></data>'
    assert firehose.parse(bomb)[-1].text == "&b;"


def test_a_document_without_end_is_refused() -> None:
    documents = Documents()
    documents.feed(b"x" * (firehose.ANSWER_MAX + 1))
    with pytest.raises(ProtocolError, match="without the end"):
        documents.next()


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.integers())))
def test_storage_info_takes_any_value_for_a_number(value: object) -> None:
    info = firehose.parse_storage_info(
        ["INFO: " + json.dumps({"storage_info": {"total_blocks": value, "block_size": "4096"}})]
    )
    assert info and info.sector_bytes == 4096 and info.sector_count >= 0


def test_a_digest_is_found_in_a_log_or_in_the_response() -> None:
    digest = "ab" * 32
    assert firehose.parse_digest([f"INFO: Digest {digest}"], {}) == bytes.fromhex(digest)
    assert firehose.parse_digest([], {"Digest": digest}) == bytes.fromhex(digest)
    assert firehose.parse_digest(["INFO: none"], {}) is None


# --- USB/IP -----------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 2**32 - 1),
    st.integers(0, 15),
    st.booleans(),
    st.integers(0, 1 << 24),
    st.binary(min_size=8, max_size=8),
)
def test_a_transfer_is_read_as_it_was_built(
    sequence: int, endpoint: int, incoming: bool, size: int, setup: bytes
) -> None:
    transfer = usbip.Transfer(sequence, endpoint, incoming, size, setup)
    assert usbip.parse_request(usbip.build_submit(transfer, 0x10002)) == transfer


@given(st.binary(min_size=48, max_size=48))
def test_any_header_is_a_request_and_an_answer_or_none(header: bytes) -> None:
    usbip.parse_request(header)
    answer = usbip.parse_answer(header)
    assert answer is None or answer.command in (usbip.SUBMIT_REPLY, usbip.UNLINK_REPLY)
