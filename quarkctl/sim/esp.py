"""A virtual ESP32 in download mode behind a TCP socket: ROM loader, flasher stub, flash. For esptool, which is real.

Written from Espressif's description of the protocol. The stub's code is not run: once it has been loaded and started, the
loader answers as the stub does. Flash behaves as NOR flash: erasing sets bits, programming clears them.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from quarkctl.formats import esp_rom
from quarkctl.formats.esp_rom import Command, Request

SECTOR_BYTES = 0x1000
_BLOCK_BYTES = 0x10000
_ROM_BAUD = 115_200
_SYNC_VALUE = 0x20120707
#: ESP32: what tells the chip, fuses with MAC and revision 3 (ESP-IDF technical reference, esptool).
_MAGIC_ADDRESS, _MAGIC = 0x40001000, 0x00F01D83
_FUSES = 0x3FF5A000
_SPI = 0x3FF42000
_SPI_COMMAND, _SPI_USER2, _SPI_DATA = _SPI, _SPI + 0x24, _SPI + 0x80
_SPI_START = 1 << 18
_READ_ID = 0x9F
_OK, _INVALID, _FAILED = (0, 0), (1, 5), (1, 6)
#: The largest window a chunk may blow up to.
_INFLATE_MAX = 1 << 20


@dataclass
class Speed:
    """Times of a device in seconds; zero everywhere means that nothing is waited for.

    Flash: Winbond W25Q32JV, typical times. MD5: derived from SPI reads at 40 MHz, one bit wide, unverified on a device.
    """

    paced: bool = True
    block_erase_s: float = 0.150
    sector_erase_s: float = 0.045
    page_program_s: float = 0.0004
    md5_bytes_per_s: float = 4e6


@dataclass
class VirtualEsp:
    """One device; ``flash`` outlives connections, as it does resets.

    Faults: ``cut_at`` loses power before the flash operation of that number, until ``powered`` is set again; ``baud_max``
    damages everything above that rate.
    """

    flash_bytes: int = 4 << 20
    mac: bytes = bytes.fromhex("246f28a1b2c3")
    magic: int = _MAGIC
    speed: Speed = field(default_factory=lambda: Speed(paced=False))
    cut_at: int = -1
    powered: bool = True
    baud_max: int = 1 << 30
    flash: bytearray = field(init=False)
    operations: int = 0
    written_bytes: int = 0
    bauds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.flash = bytearray(b"\xff" * self.flash_bytes)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._closing = False
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"socket://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> VirtualEsp:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()

    def _accept(self) -> None:
        while not self._closing:
            try:
                channel, _ = self._server.accept()
            except OSError:
                return
            with channel, contextlib.suppress(OSError):
                if not self.powered:
                    continue
                channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _Loader(self, channel).serve()

    # --- flash --------------------------------------------------------------------------------------------------------

    def erase(self, offset: int, size: int) -> float:
        """Returns how long it takes; raises PowerLost."""
        took = 0.0
        for at in range(offset // SECTOR_BYTES * SECTOR_BYTES, min(offset + size, self.flash_bytes), SECTOR_BYTES):
            self._operation()
            self.flash[at : at + SECTOR_BYTES] = b"\xff" * SECTOR_BYTES
            took += self.speed.block_erase_s * SECTOR_BYTES / _BLOCK_BYTES
        return took

    def program(self, offset: int, data: bytes) -> float:
        self._operation()
        there = int.from_bytes(self.flash[offset : offset + len(data)], "little")
        self.flash[offset : offset + len(data)] = (there & int.from_bytes(data, "little")).to_bytes(len(data), "little")
        self.written_bytes += len(data)
        return self.speed.page_program_s * len(data) / 256

    def _operation(self) -> None:
        if self.operations == self.cut_at:
            self.cut_at, self.powered = -1, False
            raise PowerLost
        self.operations += 1


class PowerLost(OSError):
    """The device is off from this flash operation on; its line goes dead."""


class _Loader:
    """One connection: from reset to the next."""

    def __init__(self, esp: VirtualEsp, channel: socket.socket) -> None:
        self._esp = esp
        self._channel = channel
        self._reader = esp_rom.PacketReader()
        self._noise = random.Random(1)
        self._baud = _ROM_BAUD
        self._stub = False
        self._registers = {
            _MAGIC_ADDRESS: esp.magic,
            _FUSES + 4: int.from_bytes(esp.mac[2:], "big"),
            _FUSES + 8: int.from_bytes(esp.mac[:2], "big"),
            _FUSES + 12: 1 << 15 | 1 << 9,
            _FUSES + 20: 1 << 20,
            # The ROM's measure of a crystal of 40 MHz: 800 periods beside a clock of 128/16 MHz.
            _FUSES + 16: 128,
            0x3FF5F06C: 800 << 7,
            0x3FF6607C: 1 << 31,
            0x3FF40014: 40_000_000 // _ROM_BAUD,
        }
        self._at = self._end = self._erased = 0
        self._inflate: zlib._Decompress | None = None
        self._line_free = self._flash_free = 0.0

    def serve(self) -> None:
        while data := self._channel.recv(65536):
            if self._esp.speed.paced:
                self._line_free = max(self._line_free, time.monotonic()) + len(data) * 10 / self._baud
                self._sleep_until(self._line_free)
            if self._baud > self._esp.baud_max:
                data = self._noise.randbytes(len(data))
            for packet in self._reader.feed(data):
                request = esp_rom.parse_request(packet)
                if request:
                    self._handle(request)

    def _sleep_until(self, at: float) -> None:
        if self._esp.speed.paced:
            time.sleep(max(at - time.monotonic(), 0.0))

    def _answer(self, command: int, result: tuple[int, int], value: int = 0, data: bytes = b"") -> None:
        status = bytes(result) if self._stub else bytes([*result, 0, 0])
        wire = esp_rom.build_response(command, value, data, status)
        if self._esp.speed.paced:
            time.sleep(len(wire) * 10 / self._baud)
        self._channel.sendall(self._noise.randbytes(len(wire)) if self._baud > self._esp.baud_max else wire)

    def _handle(self, request: Request) -> None:
        handlers: dict[int, Callable[[Request], None]] = {
            Command.SYNC: self._sync,
            Command.READ_REG: self._read_register,
            Command.WRITE_REG: self._write_register,
            Command.MEM_DATA: self._memory_data,
            Command.MEM_END: self._memory_end,
            Command.CHANGE_BAUDRATE: self._change_baud,
            Command.FLASH_BEGIN: self._begin,
            Command.FLASH_DEFL_BEGIN: self._begin,
            Command.FLASH_DATA: self._data,
            Command.FLASH_DEFL_DATA: self._data,
            Command.SPI_FLASH_MD5: self._md5,
            Command.ERASE_FLASH: self._erase,
            Command.ERASE_REGION: self._erase,
        }
        plain = (
            Command.MEM_BEGIN, Command.SPI_ATTACH, Command.SPI_SET_PARAMS, Command.FLASH_END, Command.FLASH_DEFL_END,
        )  # fmt: skip
        if request.command in plain:
            self._answer(request.command, _OK)
            return
        try:
            handlers.get(request.command, self._unknown)(request)
        except struct.error:
            self._answer(request.command, _INVALID)

    def _unknown(self, request: Request) -> None:
        self._answer(request.command, _INVALID)

    def _sync(self, request: Request) -> None:
        for _ in range(8):
            self._answer(request.command, _OK, 0 if self._stub else _SYNC_VALUE)

    # --- registers and memory -----------------------------------------------------------------------------------------

    def _read_register(self, request: Request) -> None:
        self._answer(request.command, _OK, self._registers.get(struct.unpack("<I", request.data)[0], 0))

    def _write_register(self, request: Request) -> None:
        for address, value, mask, _ in struct.iter_unpack("<IIII", request.data):
            old = self._registers.get(address, 0)
            self._registers[address] = (old & ~mask | value & mask) & 0xFFFFFFFF
        if self._registers.get(_SPI_COMMAND, 0) & _SPI_START:
            self._registers[_SPI_COMMAND] = 0
            if self._registers.get(_SPI_USER2, 0) & 0xFF == _READ_ID:
                size = self._esp.flash_bytes.bit_length() - 1
                self._registers[_SPI_DATA] = size << 16 | 0x40EF
        self._answer(request.command, _OK)

    def _memory_data(self, request: Request) -> None:
        sound = esp_rom.checksum(request.data[16:]) == request.checksum
        self._answer(request.command, _OK if sound else _FAILED)

    def _memory_end(self, request: Request) -> None:
        stays, entry = struct.unpack("<II", request.data)
        self._answer(request.command, _OK)
        if not stays and entry:
            self._stub = True
            self._channel.sendall(esp_rom.build_packet(b"OHAI"))

    def _change_baud(self, request: Request) -> None:
        baud, _ = struct.unpack("<II", request.data)
        self._answer(request.command, _OK)
        self._baud = max(baud, 300)
        self._esp.bauds.append(baud)

    # --- flash --------------------------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        size, _, _, offset = struct.unpack_from("<IIII", request.data)
        if offset + size > self._esp.flash_bytes:
            self._answer(request.command, _FAILED)
            return
        self._at, self._end = offset, offset + size
        self._erased = offset // SECTOR_BYTES * SECTOR_BYTES
        compressed = request.command == Command.FLASH_DEFL_BEGIN
        self._inflate = zlib.decompressobj() if compressed else None
        if not self._stub:  # the ROM erases first, the stub as it writes
            self._sleep_until(time.monotonic() + self._esp.erase(offset, size))
            self._erased = self._end
        self._answer(request.command, _OK)

    def _data(self, request: Request) -> None:
        size, _, _, _ = struct.unpack_from("<IIII", request.data)
        payload = request.data[16:]
        if size != len(payload) or esp_rom.checksum(payload) != request.checksum:
            self._answer(request.command, _FAILED)
            return
        if self._inflate:
            try:
                payload = self._inflate.decompress(payload, _INFLATE_MAX)
            except zlib.error:
                self._answer(request.command, _FAILED)
                return
        payload = payload[: max(self._end - self._at, 0)]
        # The stub answers when the block before this one is in flash, and writes while the next one comes.
        self._sleep_until(self._flash_free)
        took = 0.0
        if self._erased < self._at + len(payload):
            end = -(-(self._at + len(payload)) // SECTOR_BYTES) * SECTOR_BYTES
            took += self._esp.erase(self._erased, end - self._erased)
            self._erased = end
        for i in range(0, len(payload), SECTOR_BYTES):
            took += self._esp.program(self._at + i, payload[i : i + SECTOR_BYTES])
        self._at += len(payload)
        self._flash_free = max(self._flash_free, time.monotonic()) + took
        if not self._stub:
            self._sleep_until(self._flash_free)
        self._answer(request.command, _OK)

    def _md5(self, request: Request) -> None:
        offset, size, _, _ = struct.unpack("<IIII", request.data)
        self._sleep_until(max(self._flash_free, time.monotonic()) + size / self._esp.speed.md5_bytes_per_s)
        digest = hashlib.md5(self._esp.flash[offset : offset + size], usedforsecurity=False)
        self._answer(request.command, _OK, 0, digest.digest() if self._stub else digest.hexdigest().encode())

    def _erase(self, request: Request) -> None:
        offset, size = (0, self._esp.flash_bytes) if not request.data else struct.unpack("<II", request.data)
        self._sleep_until(time.monotonic() + self._esp.erase(offset, size))
        self._answer(request.command, _OK)
