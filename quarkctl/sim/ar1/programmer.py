"""The Firehose programmer, the device's side. It parses XML with the standard library, not with the client's parser.

Source: the protocol as linux-msm/qdl speaks it; log texts are like those of public programmers' logs.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from quarkctl.sim.ar1.settings import MIB, Remembered, Settings
from quarkctl.sim.ar1.storage import MediaError, Storage
from quarkctl.sim.ar1.vip import Refusal, Vip
from quarkctl.sim.usb_device import UsbDevice

_XML_MAX = 4096
_FUNCTIONS = (
    "program read nop patch configure setbootablestoragedrive erase power getstorageinfo getsha256digest ufs peek"
)
_LONG_WINDOW = 256 * MIB


class Nak(Exception):
    """The command is refused; the text is the device's ERROR log."""


@dataclass
class RawPhase:
    """A write that waits for its data."""

    lun: int
    offset: int
    left_bytes: int
    failed: str = ""


class Programmer:
    """What runs on the device once it was loaded. It outlives connections: only a power cut or ``power`` ends it."""

    def __init__(
        self, settings: Settings, remembered: Remembered, storage: Storage, remember: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._quirks = settings.quirks
        self._remembered = remembered
        self._remember = remember
        self._storage = storage
        self._payload_bytes = settings.payload_bytes
        self._raw: RawPhase | None = None
        self._told = False
        self._usb: UsbDevice
        self._next = ""
        self._pending = b""
        #: Documents that go out together with the next one.
        self._held = b""
        self._vip = Vip() if "vip" in self._quirks else None
        self.ufs_committed = False

    # --- the loop -----------------------------------------------------------------------------------------------------

    def serve(self, usb: UsbDevice) -> str:
        """Serve one connection; returns the mode to go to. Raises Unplugged."""
        self._usb = usb
        self._next = ""
        self._pending = b""
        if self._raw and "raw_survives" not in self._quirks:
            self._raw = None
        if self._raw:
            self._finish_raw(self._raw)
        elif not self._told:
            self._told = True
            self._banner()
        while not self._next:
            self._one(self._document())
        return self._next

    def _banner(self) -> None:
        for text in (
            "Binary build date: Jan  1 2026 @ 00:00:00",
            f"Chip serial num: {self._settings.chip_serial}",
            f"Supported Functions ({len(_FUNCTIONS.split())}):",
            _FUNCTIONS,
            "End of supported functions",
        ):
            self._log(f"INFO: {text}")
        if self._vip:
            self._log("VIP is enabled, receiving the signed table of size 8192")

    def _document(self) -> bytes:
        """The next XML document of the host; its packets may be split anywhere."""
        while b"</data>" not in self._pending and b"</patches>" not in self._pending:
            # A command's buffer is small; a table of digests is not a command.
            piece = bytes(self._usb.incoming.read(MIB if self._vip else _XML_MAX))
            if self._vip and piece:
                self._vip_packet(self._vip, piece)
                if self._vip.table_taken:
                    self._respond(ok=True)
                    continue
            self._pending += piece
            if len(self._pending) > _XML_MAX:
                self._pending = b""
                self._log("ERROR: XML packet too large")
                self._respond(ok=False)
        end = self._pending.find(b"</data>") + len(b"</data>")
        document, self._pending = self._pending[:end], self._pending[end:].lstrip(b"\n\0")
        return document

    def _vip_packet(self, vip: Vip, packet: bytes) -> None:
        try:
            vip.take(packet)
        except Refusal as refusal:
            self._log(f"ERROR: {refusal}")
            self._respond(ok=False)
            raise ConnectionResetError from refusal  # a real programmer takes nothing more

    def _one(self, document: bytes) -> None:
        try:
            start = document.find(b"<?xml")
            root = ElementTree.fromstring(document[max(start, 0) :].decode())  # noqa: S314 - a simulator, fed by tests
            commands = list(root)
        except (ElementTree.ParseError, UnicodeDecodeError):
            self._log("ERROR: XML not well formed")
            self._respond(ok=False)
            return
        for element in commands:
            if "log_flood" in self._quirks:
                for _ in range(2000):
                    self._log("INFO: " + "x" * 1000)
            handler = getattr(self, f"_do_{element.tag}", None)
            if handler is None:
                self._log(f"ERROR: unknown command {element.tag}")
                self._respond(ok=False)
                continue
            self._log(f"INFO: Calling handler for {element.tag}")
            if "long_answers" in self._quirks:
                self._log("INFO: " + "x" * (2 * _XML_MAX))
            try:
                handler(element.attrib)
            except (Nak, MediaError) as refusal:
                self._log(f"ERROR: {refusal}")
                self._respond(ok=False)
            except (ValueError, KeyError, OverflowError):
                self._log(f"ERROR: malformed attributes of {element.tag}")
                self._respond(ok=False)
            if "late_logs" in self._quirks:
                self._log("INFO: this comes late")

    # --- answers ------------------------------------------------------------------------------------------------------

    def _send(self, element: str) -> None:
        document = f'<?xml version="1.0" encoding="UTF-8" ?><data>{element}</data>'.encode()
        if "split_documents" in self._quirks:
            for at in range(0, len(document), 7):
                self._usb.outgoing.write(document[at : at + 7])
            return
        if "joined_documents" in self._quirks and "<log" in element:
            self._held += document
            return
        document, self._held = self._held + document, b""
        # The end of the transfer must be visible.
        self._usb.outgoing.write(document, zero_packet=True)

    def _log(self, text: str) -> None:
        if "unescaped_logs" in self._quirks:
            self._send(f'<log value="{text} <&> "quoted" " />')
        else:
            self._send(f'<log value="{escape(text, {chr(34): "&quot;"})}" />')

    def _respond(self, *, ok: bool, raw: bool = False, **attributes: object) -> None:
        words = "".join(f' {k}="{v}"' for k, v in attributes.items())
        self._send(f'<response value="{"ACK" if ok else "NAK"}" rawmode="{str(raw).lower()}"{words} />')

    # --- commands -----------------------------------------------------------------------------------------------------

    def _do_nop(self, _: Mapping[str, str]) -> None:
        self._respond(ok=True)

    def _do_configure(self, a: Mapping[str, str]) -> None:
        wanted = int(a.get("MaxPayloadSizeToTargetInBytes", "0"))
        offered = 16384 if "small_payload" in self._quirks else self._settings.payload_bytes
        if "odd_payload" in self._quirks:
            offered = self._settings.payload_bytes - 300
        memory = a.get("MemoryName", "").lower()
        if memory != self._settings.memory:
            raise Nak(f"storage type {memory} is not present, this device has {self._settings.memory}")
        refused = wanted > offered and "small_payload" in self._quirks
        self._payload_bytes = min(wanted or offered, offered)
        self._respond(
            ok=not refused, MinVersionSupported=1, Version=1, MemoryName=memory,
            MaxPayloadSizeToTargetInBytes=self._payload_bytes, MaxPayloadSizeToTargetInBytesSupported=offered,
            MaxXMLSizeInBytes=_XML_MAX, TargetName="virtual",
        )  # fmt: skip

    def _range(self, a: Mapping[str, str], *, whole: bool = False) -> tuple[int, int, int]:
        """LUN, offset and size in bytes."""
        sector = self._settings.sector_bytes
        said = int(a.get("SECTOR_SIZE_IN_BYTES", sector))
        if said != sector:
            raise Nak(f"sector size defined in XML ({said}) different from device sector size ({sector})")
        lun = int(a.get("physical_partition_number", "0"))
        if not 0 <= lun < len(self._storage.lun_bytes):
            raise Nak(f"there is no physical partition {lun}")
        sectors = self._storage.lun_bytes[lun] // sector
        if whole and not a.get("num_partition_sectors"):
            return lun, 0, self._storage.lun_bytes[lun]
        start = self._evaluate(a.get("start_sector", "0"), lun)
        count = int(a.get("num_partition_sectors", "0"))
        if start < 0 or count <= 0 or start + count > sectors:
            raise Nak(f"range {start}+{count} outside of {sectors} sectors of physical partition {lun}")
        return lun, start * sector, count * sector

    def _do_program(self, a: Mapping[str, str]) -> None:
        lun, offset, size = self._range(a)
        self._respond(ok=True, raw=True)
        self._raw = RawPhase(lun, offset, size)
        if "early_nak" in self._quirks:
            self._raw.failed = "device is write protected"
            self._log("ERROR: device is write protected")
            self._respond(ok=False)
        self._finish_raw(self._raw)

    def _finish_raw(self, raw: RawPhase) -> None:
        told = bool(raw.failed)
        while raw.left_bytes:
            table_due = self._vip is not None and self._vip.table_due
            piece = self._usb.incoming.read(MIB if table_due else min(raw.left_bytes, self._payload_bytes))
            if self._vip and len(piece):
                self._vip_packet(self._vip, bytes(piece))
                if table_due:
                    self._respond(ok=True)
                    continue
            if not raw.failed:
                try:
                    self._storage.write(raw.lun, raw.offset, piece)
                except MediaError as error:
                    raw.failed = str(error)
            raw.offset += len(piece)
            raw.left_bytes -= len(piece)
        self._raw = None
        if told:
            return
        if raw.failed:
            self._log(f"ERROR: {raw.failed}")
        self._respond(ok=not raw.failed)

    def _do_read(self, a: Mapping[str, str]) -> None:
        lun, offset, size = self._range(a)
        self._respond(ok=True, raw=True)
        for at in range(offset, offset + size, self._payload_bytes):
            piece = self._storage.read(lun, at, min(self._payload_bytes, offset + size - at))
            self._usb.outgoing.write(piece)
        self._respond(ok=True)

    def _do_erase(self, a: Mapping[str, str]) -> None:
        lun, offset, size = self._range(a, whole=True)
        self._storage.erase(lun, offset, size)
        self._respond(ok=True)

    def _do_getsha256digest(self, a: Mapping[str, str]) -> None:
        if "no_digest" in self._quirks:
            raise Nak("unknown command getsha256digest")
        lun, offset, size = self._range(a)
        if size > _LONG_WINDOW:
            raise Nak("the watchdog bit: range too long")
        digest = self._storage.digest(lun, offset, size)
        if "digest_lies" in self._quirks:
            digest = digest[::-1]
        self._log(f"Digest {digest.hex()}")
        self._respond(ok=True)

    def _do_getstorageinfo(self, a: Mapping[str, str]) -> None:
        if "no_storage_info" in self._quirks:
            raise Nak("unknown command getstorageinfo")
        lun = int(a.get("physical_partition_number", "0"))
        if not 0 <= lun < len(self._storage.lun_bytes):
            raise Nak(f"there is no physical partition {lun}")
        s = self._settings
        info = {
            "total_blocks": self._storage.lun_bytes[lun] // s.sector_bytes, "block_size": s.sector_bytes,
            "page_size": s.sector_bytes, "num_physical": len(self._storage.lun_bytes), "manufacturer_id": 1,
            "serial_num": s.chip_serial, "fw_version": "1", "mem_type": s.memory.upper(), "prod_name": "VIRTUAL",
        }  # fmt: skip
        self._log("INFO: " + json.dumps({"storage_info": info}))
        self._respond(ok=True)

    def _do_patch(self, a: Mapping[str, str]) -> None:
        sector = self._settings.sector_bytes
        if a.get("filename", "DISK") != "DISK":
            self._respond(ok=True)
            return
        lun, offset, _ = self._range({**a, "num_partition_sectors": "1"})
        at, size = int(a["byte_offset"]), int(a["size_in_bytes"])
        if at + size > sector or size not in (1, 2, 4, 8):
            raise Nak("the patch does not fit a sector")
        value = self._evaluate(a["value"], lun)
        block = bytearray(self._storage.read(lun, offset, sector))
        block[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        self._storage.write(lun, offset, block)
        self._respond(ok=True)

    def _do_setbootablestoragedrive(self, a: Mapping[str, str]) -> None:
        lun = int(a.get("value", "-1"))
        if not 0 <= lun < max(len(self._storage.lun_bytes), 2):
            raise Nak(f"cannot boot from physical partition {lun}")
        self._remembered.bootable_lun = lun
        self._remember()
        self._respond(ok=True)

    def _do_power(self, a: Mapping[str, str]) -> None:
        modes = {"reset": "system", "off": "off", "reset_to_edl": "edl"}
        mode = modes.get(a.get("value", ""))
        if mode is None:
            raise Nak("unknown value")
        self._respond(ok=True)
        self._next = mode

    def _do_ufs(self, a: Mapping[str, str]) -> None:
        if a.get("commit") == "1":
            self.ufs_committed = True
        self._respond(ok=True)

    def _do_peek(self, a: Mapping[str, str]) -> None:
        """Memory that counts upwards; outside of it the programmer would crash."""
        address, size = int(a.get("address64", "0"), 0), int(a.get("size_in_bytes", "0"))
        if not 0x1000_0000 <= address < 0x1001_0000 or not 0 < size <= 1024:
            raise Nak("peek outside of the memory that is allowed")
        for at in range(address, address + size, 16):
            self._log(" ".join(f"0x{n & 0xFF:02x}" for n in range(at, min(at + 16, address + size))))
        self._respond(ok=True)

    # --- expressions --------------------------------------------------------------------------------------------------

    def _evaluate(self, text: str, lun: int) -> int:
        """``12``, ``NUM_DISK_SECTORS-5.``, ``CRC32(2,4096)``; a dot at the end means nothing."""
        match = re.fullmatch(r"\s*CRC32\(\s*([^,]+),\s*([^)]+)\)\s*\.?", text)
        if match:
            start, size = self._evaluate(match[1], lun), self._evaluate(match[2], lun)
            sector = self._settings.sector_bytes
            if start < 0 or size < 0 or start * sector + size > self._storage.lun_bytes[lun]:
                raise Nak(f"CRC32 outside of physical partition {lun}")
            total = 0
            for at in range(start * sector, start * sector + size, MIB):
                total = zlib.crc32(self._storage.read(lun, at, min(MIB, start * sector + size - at)), total)
            return total
        sectors = self._storage.lun_bytes[lun] // self._settings.sector_bytes
        total = 0
        for sign, word in re.findall(r"([+-]?)\s*(NUM_DISK_SECTORS|0x[0-9a-fA-F]+|\d+)", text):
            number = sectors if word == "NUM_DISK_SECTORS" else int(word, 0)
            total += -number if sign == "-" else number
        if not re.fullmatch(r"\s*[+-]?\s*\w+(\s*[+-]\s*\w+)*\s*\.?\s*", text):
            raise Nak(f"cannot evaluate {text!r}")
        return total
