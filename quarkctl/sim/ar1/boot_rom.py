"""The boot ROM in emergency download, and the memory dump of a crashed system: Sahara, the device's side.

Source: the protocol as linux-msm/qdl speaks it; what a ROM does around it is a model.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from quarkctl.formats import sahara
from quarkctl.formats.sahara import Client, Command, Mode, Region
from quarkctl.sim.ar1.settings import Settings
from quarkctl.sim.usb_device import UsbDevice

_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_LIMIT_BYTES = 1024
_READ_BYTES = 64 << 10
_IMAGE_MAX = 16 << 20
_DEBUG_TABLE_AT = 0x1000


class Restart(Exception):
    """The host asked for a reset, or said something that makes the ROM start again."""


@dataclass(frozen=True)
class Identity:
    """What the fuses say."""

    serial: int
    chip_id: int = 0x001740E1
    oem_id: int = 0
    model_id: int = 0
    key_hash: bytes = hashlib.sha384(b"virtual development key").digest()


class BootRom:
    """Sahara until a programmer runs (``load``), or until a memory dump ends (``dump``)."""

    def __init__(self, settings: Settings, usb: UsbDevice) -> None:
        self._settings = settings
        self._usb = usb
        self._version = 3 if "sahara_v3" in settings.quirks else 2
        self._identity = Identity(settings.chip_serial)

    # --- packets ------------------------------------------------------------------------------------------------------

    def _send(self, command: Command, **fields: int) -> None:
        self._usb.outgoing.write(sahara.build(command, **fields))

    def _receive(self) -> sahara.Packet:
        """The host's next packet. Image data that comes instead, and XML, make the ROM start again."""
        raw = b""
        while not raw:
            raw = bytes(self._usb.incoming.read(4096))
        try:
            parsed = sahara.parse(raw)
        except Exception:  # noqa: BLE001 - whatever the host says, the ROM goes on
            raise Restart from None
        if parsed is None or parsed[1]:
            raise Restart
        return parsed[0]

    def _expect(self, *commands: Command) -> sahara.Packet:
        packet = self._receive()
        if packet.command is Command.RESET:
            self._send(Command.RESET_RESPONSE)
            raise Restart
        if packet.command not in commands:
            raise Restart
        return packet

    def _hello(self, mode: Mode) -> Mode:
        self._send(Command.HELLO, version=self._version, compatible=1, limit_bytes=_LIMIT_BYTES, mode=mode)
        packet = self._expect(Command.HELLO_RESPONSE)
        if packet["status"] or not 1 <= packet["version"] <= self._version or packet["mode"] not in list(Mode):
            raise Restart
        return Mode(packet["mode"])

    # --- a programmer -------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Returns when a programmer runs. Raises Restart, Unplugged."""
        while True:
            mode = self._hello(Mode.IMAGE_PENDING)
            if mode is Mode.COMMAND:
                self._command_mode()
                continue
            image = self._read_image()
            status = self._judge(image)
            self._send(Command.END_OF_IMAGE, image=sahara.PROGRAMMER_ID, status=status)
            if status:
                raise Restart
            self._expect(Command.DONE)
            self._send(Command.DONE_RESPONSE, complete=0 if "done_pending" in self._settings.quirks else 1)
            return

    def _judge(self, image: bytes) -> int:
        if not image:
            return 0x14
        wrong = self._settings.programmer_digest not in ("", hashlib.sha256(image).hexdigest())
        return 0x21 if wrong or "wrong_programmer" in self._settings.quirks else 0

    def _read_image(self) -> bytes:
        """An ELF file as a ROM reads it: header, program headers, segments. Empty for anything else."""
        header = self._read(0, _ELF_HEADER.size)
        fields = _ELF_HEADER.unpack(header)
        if (
            fields[0][:5] != b"\x7fELF\x02"
            or fields[9] != _PROGRAM_HEADER.size
            or not 0 < fields[10] <= 16
            or fields[5] > _IMAGE_MAX
        ):
            return b""
        table = self._read(fields[5], fields[9] * fields[10])
        end = max((offset + size for _, _, offset, _, _, size, _, _ in _PROGRAM_HEADER.iter_unpack(table)), default=0)
        if not _ELF_HEADER.size < end <= _IMAGE_MAX:
            return b""
        pieces = [(at, min(_READ_BYTES, end - at)) for at in range(0, end, _READ_BYTES)]
        got = {at: self._read(at, size) for at, size in reversed(pieces)}
        if "reads_twice" in self._settings.quirks:
            got.update({at: self._read(at, size) for at, size in pieces})
        return b"".join(got[at] for at, _ in pieces)

    def _read(self, offset: int, size_bytes: int) -> bytes:
        kind = Command.READ_DATA if "reads_32" in self._settings.quirks else Command.READ_DATA_64
        self._send(kind, image=sahara.PROGRAMMER_ID, offset=offset, size_bytes=size_bytes)
        data = b""
        while len(data) < size_bytes:
            piece = bytes(self._usb.incoming.read(size_bytes - len(data)))
            if not piece and "zlp_stalls" in self._settings.quirks:
                self._usb.incoming.halt()
                raise Restart
            if not data and piece == sahara.build(Command.RESET):
                self._send(Command.RESET_RESPONSE)
                raise Restart
            data += piece
        return data

    # --- command mode -------------------------------------------------------------------------------------------------

    def _command_mode(self) -> None:
        """Returns when the host switches back to the transfer of images."""
        if "no_command_mode" in self._settings.quirks:
            self._send(Command.END_OF_IMAGE, image=0, status=0x1F)
            raise Restart
        self._send(Command.COMMAND_READY)
        answers = self._answers()
        while True:
            packet = self._expect(Command.EXECUTE, Command.SWITCH_MODE)
            if packet.command is Command.SWITCH_MODE:
                return
            data = answers.get(packet["client"])
            if data is None:
                self._send(Command.END_OF_IMAGE, image=0, status=0x20)
                raise Restart
            self._send(Command.EXECUTE_RESPONSE, client=packet["client"], size_bytes=len(data))
            self._expect(Command.EXECUTE_DATA)
            self._usb.outgoing.write(data)

    def _answers(self) -> dict[int, bytes]:
        i = self._identity
        answers: dict[int, bytes] = {
            Client.SERIAL: i.serial.to_bytes(4, "little"),
            Client.KEY_HASH: i.key_hash * 3,
        }
        if self._version < 3:
            number = i.chip_id << 32 | i.oem_id << 16 | i.model_id
            answers[Client.HARDWARE_ID] = number.to_bytes(8, "little")
        else:
            answers[Client.CHIP_ID_V3] = bytes(36) + struct.pack("<IHHH", i.chip_id, i.oem_id, i.model_id, 0)
        return answers

    # --- memory dump --------------------------------------------------------------------------------------------------

    def dump(self, memory: Sequence[tuple[Region, bytes]]) -> None:
        """Offer memory until the host resets. Raises Restart then."""
        self._hello(Mode.MEMORY_DEBUG)
        wide = "reads_32" not in self._settings.quirks
        table = sahara.build_regions([r for r, _ in memory], wide=wide)
        command = Command.MEMORY_DEBUG_64 if wide else Command.MEMORY_DEBUG
        self._send(command, address=_DEBUG_TABLE_AT, size_bytes=len(table))
        places = [(_DEBUG_TABLE_AT, table), *((r.address, data) for r, data in memory)]
        while True:
            packet = self._expect(Command.MEMORY_READ_64 if wide else Command.MEMORY_READ)
            address, size = packet["address"], packet["size_bytes"]
            found = next((d[address - a :][:size] for a, d in places if a <= address < a + len(d)), b"")
            if len(found) != size:
                self._send(Command.END_OF_IMAGE, image=0, status=0x19)
                raise Restart
            self._usb.outgoing.write(found, zero_packet=True)


def programmer(size_bytes: int = 200_000) -> bytes:
    """A file that the virtual ROM takes for a Firehose programmer: ELF, one segment, nothing in it. The virtual AR1 has
    its programmer built in."""
    start = _ELF_HEADER.size + _PROGRAM_HEADER.size
    header = _ELF_HEADER.pack(
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), 2, 183, 1, 0x1000, 64, 0, 0, 64, _PROGRAM_HEADER.size, 1, 0, 0, 0
    )
    segment = _PROGRAM_HEADER.pack(1, 5, start, 0x1000, 0x1000, size_bytes - start, size_bytes - start, 4096)
    return header + segment + b"virtual Firehose programmer\0".ljust(size_bytes - start, b"\0")
