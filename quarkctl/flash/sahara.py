"""The Sahara client: give a boot ROM its programmer, ask it who it is, save the memory of a crashed system."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from quarkctl.errors import DeviceRefused, HostUnfit, LinkLost, LinkTimeout, ProtocolError
from quarkctl.formats import sahara
from quarkctl.formats.sahara import ChipInfo, Client, Command, Mode, Packet, Region
from quarkctl.link.usb import UsbLink

#: Silence after which the ROM is given up.
SILENCE_S = 5.0
#: A ROM that reads on beyond this many times the images' size will never end.
_READ_FACTOR = 16
_DUMP_BYTES = 512 << 10
_MODES = "power-cycle the device into emergency download and repeat: a boot ROM that stopped half-way starts only anew"


class Sahara:
    """One conversation with a boot ROM. ``first`` is what was read already."""

    def __init__(self, link: UsbLink, first: bytes = b"") -> None:
        self._link = link
        self._pending = first

    def _receive(self, silence_s: float = SILENCE_S) -> Packet:
        deadline = time.monotonic() + silence_s
        while True:
            parsed = sahara.parse(self._pending)
            if parsed:
                packet, self._pending = parsed
                return packet
            piece = self._link.read(max(deadline - time.monotonic(), 0.0))
            if not piece:
                raise LinkTimeout(f"{self._link.name} says nothing more", hint=_MODES)
            self._pending += piece

    def _send(self, command: Command, **fields: int) -> None:
        self._link.write(sahara.build(command, **fields))

    def _answer_hello(self, hello: Packet, mode: Mode) -> None:
        version = min(hello["version"], sahara.VERSION_MAX)
        self._send(Command.HELLO_RESPONSE, version=version, compatible=1, status=0, mode=mode)

    def _hello(self) -> Packet:
        packet = self._receive()
        if packet.command is not Command.HELLO:
            raise ProtocolError(f"the boot ROM said {packet.command.name} instead of HELLO", hint=_MODES)
        return packet

    # --- images -------------------------------------------------------------------------------------------------------

    def upload(self, images: Mapping[int, bytes], moved: Callable[[int], None] = lambda _: None) -> None:
        """Give the ROM what it asks for, by image id, until it is complete. ``moved`` gets the bytes sent so far.

        Raises DeviceRefused when the ROM does not take an image, ProtocolError when it asks for what there is not.
        """
        self._answer_hello(self._hello(), Mode.IMAGE_PENDING)
        sent, limit = 0, _READ_FACTOR * sum(map(len, images.values()))
        while True:
            packet = self._receive()
            if packet.command in (Command.READ_DATA, Command.READ_DATA_64):
                piece = self._piece(images, packet)
                sent += len(piece)
                if sent > limit:
                    self._send(Command.RESET)
                    raise ProtocolError(f"the boot ROM has read {sent} bytes and still wants more", hint=_MODES)
                # Exactly these bytes: a zero-length packet after them stops some ROMs for good.
                self._link.write(piece)
                moved(sent)
            elif packet.command is Command.END_OF_IMAGE:
                self._check_status(packet)
                self._send(Command.DONE)
            elif packet.command is Command.DONE_RESPONSE:
                if packet["complete"] or self._ends_pending(len(images)):
                    return
            elif packet.command is Command.HELLO:
                self._answer_hello(packet, Mode.IMAGE_PENDING)
            else:
                self._send(Command.RESET)
                raise ProtocolError(f"the boot ROM said {packet.command.name} while it loads an image", hint=_MODES)

    def _piece(self, images: Mapping[int, bytes], packet: Packet) -> bytes:
        image = images.get(packet["image"])
        offset, size = packet["offset"], packet["size_bytes"]
        if image is None or not size or offset + size > len(image):
            self._send(Command.RESET)
            what = "there is none" if image is None else f"it has {len(image)}"
            raise ProtocolError(
                f"the boot ROM asked for {size} bytes at {offset} of image {packet['image']}, and {what}",
                hint="is this the programmer for this device? " + _MODES,
            )
        return image[offset : offset + size]

    @staticmethod
    def _check_status(packet: Packet) -> None:
        status = packet["status"]
        if not status:
            return
        words = sahara.STATUS.get(status, f"status {status:#x}")
        hint = (
            "this programmer is not signed for this device: take the one of its vendor (`quarkctl ar1 chip-info` shows "
            "the hash of the key that it trusts)"
            if status in sahara.WRONG_SIGNATURE
            else _MODES
        )
        raise DeviceRefused(f"the boot ROM refused image {packet['image']}: {words}", hint)

    def _ends_pending(self, count: int) -> bool:
        """Pending means that a HELLO for the next image follows. Some ROMs say it after their only image: silence then, or
        the programmer's XML, is the end."""
        if self._pending:
            return self._pending.startswith(b"<")
        piece = self._link.read(SILENCE_S if count > 1 else 1.0)
        self._pending += piece
        return not piece or piece.startswith(b"<")

    @property
    def rest(self) -> bytes:
        """What was read beyond the last packet: the programmer's first words."""
        return self._pending

    # --- who is it ----------------------------------------------------------------------------------------------------

    def chip_info(self) -> ChipInfo:
        """Ask in command mode; the ROM waits for images again afterwards.

        Raises DeviceRefused for a ROM without command mode.
        """
        hello = self._hello()
        self._answer_hello(hello, Mode.COMMAND)
        packet = self._receive()
        if packet.command is Command.END_OF_IMAGE:
            raise DeviceRefused("this boot ROM has no command mode", hint="it can still be flashed")
        if packet.command is not Command.COMMAND_READY:
            raise ProtocolError(f"the boot ROM said {packet.command.name} instead of COMMAND_READY", hint=_MODES)
        wanted = [Client.SERIAL, Client.KEY_HASH]
        wanted.append(Client.HARDWARE_ID if hello["version"] < 3 else Client.CHIP_ID_V3)
        answers = {what: self._execute(what) for what in wanted}
        self._send(Command.SWITCH_MODE, mode=Mode.IMAGE_PENDING)
        return sahara.parse_chip_info(answers)

    def _execute(self, what: Client) -> bytes:
        self._send(Command.EXECUTE, client=what)
        packet = self._receive()
        if packet.command is not Command.EXECUTE_RESPONSE or packet["size_bytes"] > 4096:
            raise ProtocolError(f"the boot ROM answered a question with {packet.command.name}", hint=_MODES)
        self._send(Command.EXECUTE_DATA, client=what)
        return self._raw(packet["size_bytes"])

    def _raw(self, size_bytes: int) -> bytes:
        data, self._pending = self._pending[:size_bytes], self._pending[size_bytes:]
        while len(data) < size_bytes:
            piece = self._link.read(SILENCE_S)
            if not piece:
                raise LinkTimeout(f"{self._link.name} stopped in the middle of its data", hint=_MODES)
            data, self._pending = data + piece[: size_bytes - len(data)], piece[size_bytes - len(data) :]
        return data

    # --- memory -------------------------------------------------------------------------------------------------------

    def regions(self) -> tuple[list[Region], bool]:
        """What a crashed system offers, and whether it has 64-bit addresses. Raises ProtocolError outside of a dump."""
        hello = self._hello()
        if hello["mode"] != Mode.MEMORY_DEBUG:
            raise ProtocolError(
                "this device waits for a programmer: it has no memory to give", hint="`quarkctl flash` it"
            )
        self._answer_hello(hello, Mode.MEMORY_DEBUG)
        packet = self._receive()
        if packet.command not in (Command.MEMORY_DEBUG, Command.MEMORY_DEBUG_64):
            raise ProtocolError(f"the device said {packet.command.name} instead of its table of memory", hint=_MODES)
        wide = packet.command is Command.MEMORY_DEBUG_64
        size = packet["size_bytes"]
        if not 0 < size <= sahara.REGION_COUNT_MAX * 64:
            raise ProtocolError(f"the device's table of memory has {size} bytes", hint=_MODES)
        return sahara.parse_regions(self._memory(packet["address"], size, wide=wide), wide=wide), wide

    def save(self, region: Region, path: Path, moved: Callable[[int], None], *, wide: bool) -> None:
        """One region into a file, whole or not at all."""
        temporary = path.with_name(f".{path.name}.new")
        try:
            with temporary.open("wb") as file:
                for at in range(0, region.size_bytes, _DUMP_BYTES):
                    size = min(_DUMP_BYTES, region.size_bytes - at)
                    file.write(self._memory(region.address + at, size, wide=wide))
                    moved(size)
            temporary.replace(path)
        except OSError as error:
            raise HostUnfit(f"cannot write {path}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _memory(self, address: int, size_bytes: int, *, wide: bool) -> bytes:
        self._send(Command.MEMORY_READ_64 if wide else Command.MEMORY_READ, address=address, size_bytes=size_bytes)
        return self._raw(size_bytes)

    def reset(self) -> None:
        """Let the device go; it restarts."""
        self._send(Command.RESET)
        try:
            while self._receive(1.0).command is not Command.RESET_RESPONSE:
                continue
        except (LinkTimeout, LinkLost, ProtocolError):
            return
