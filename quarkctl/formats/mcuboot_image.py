"""MCUboot images: header, payload, protected and unprotected TLVs.

Source: MCUboot design document, "Image Format"; TLV numbers from MCUboot ``bootutil/image.h``. Vendor TLV 0xa0 is ours:
the name of the board, UTF-8, in the protected area. All integers are little endian.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats.record import Record
from quarkctl.formats.signature import Algorithm, PublicKey

MAGIC = 0x96F3B83D
HEADER = Record(
    "MCUboot image", "<",
    "ih_magic:I ih_load_addr:I ih_hdr_size:H ih_protect_tlv_size:H ih_img_size:I ih_flags:I iv_major:B iv_minor:B "
    "iv_revision:H iv_build_num:I pad1:I",
)  # fmt: skip
_AREA = Record("MCUboot TLV area", "<", "it_magic:H it_tlv_tot:H")
_ENTRY = Record("MCUboot TLV", "<", "it_type:H it_len:H")
TLV_INFO = struct.Struct("<HH")
TLV_MAGIC = 0x6907
TLV_PROTECTED_MAGIC = 0x6908

FLAG_RAM_LOAD = 0x20

TLV_KEY_HASH = 0x01
TLV_SHA256 = 0x10
TLV_ECDSA = 0x22
TLV_ED25519 = 0x24
TLV_DEPENDENCY = 0x40
TLV_SECURITY_COUNTER = 0x50
TLV_BOARD = 0xA0

#: The AR1's number in dependencies; the microcontroller's own image is 0.
AR1_IMAGE = 1
_DEPENDENCY = struct.Struct("<B3xBBHI")

TLV_NAMES = {
    0x01: "key hash", 0x02: "public key", 0x10: "sha256", 0x11: "sha384", 0x12: "sha512", 0x20: "rsa2048 pss",
    0x22: "ecdsa", 0x23: "rsa3072 pss", 0x24: "ed25519", 0x25: "pure signature", 0x30: "rsa2048 key",
    0x31: "aes key wrap", 0x32: "ec256 key", 0x33: "x25519 key", 0x40: "dependency", 0x50: "security counter",
    0x60: "boot record", TLV_BOARD: "board",
}  # fmt: skip

#: How keys sign images. Ed25519 signs the SHA-256 of the image as a message, ECDSA the image.
SIGNATURES = {"ed25519": (TLV_ED25519, Algorithm.ED25519), "ecdsa-p256": (TLV_ECDSA, Algorithm.ECDSA_P256_SHA256)}


@dataclass(frozen=True, order=True)
class Version:
    """major.minor.revision+build. imgtool writes ``1.2.3+4``, MCUboot answers ``1.2.3.4``; both are read."""

    major: int = 0
    minor: int = 0
    revision: int = 0
    build: int = 0

    @staticmethod
    def parse(text: str) -> Version:
        """Raises UsageWrong when the text is no version or a part is out of range."""
        parts = text.strip().replace("+", ".").split(".")
        limits = (0xFF, 0xFF, 0xFFFF, 0xFFFFFFFF)
        if not 1 <= len(parts) <= 4 or not all(p.isascii() and p.isdigit() and len(p) <= 10 for p in parts):
            raise UsageWrong(f"{text!r} is not a version", hint="write it as 1.2.3 or 1.2.3+4")
        numbers = [int(p) for p in parts] + [0] * (4 - len(parts))
        if any(n > limit for n, limit in zip(numbers, limits, strict=True)):
            raise UsageWrong(f"{text!r}: the parts of a version are at most 255.255.65535+4294967295")
        return Version(*numbers)

    @property
    def packed(self) -> int:
        """major << 24 | minor << 16 | revision: how the chips tell each other what they run."""
        return self.major << 24 | self.minor << 16 | self.revision

    @staticmethod
    def unpacked(value: int) -> Version:
        """Raises UsageWrong when the number has more than 32 bits."""
        if not 0 <= value <= 0xFFFFFFFF:
            raise UsageWrong(f"{value:#x} is not a version of 32 bits")
        return Version(value >> 24, value >> 16 & 0xFF, value & 0xFFFF)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.revision}" + (f"+{self.build}" if self.build else "")


@dataclass(frozen=True)
class Tlv:
    kind: int
    value: bytes
    protected: bool


@dataclass(frozen=True)
class Image:
    """A parsed image. Sizes in bytes; `hash_ok` tells whether the SHA-256 it carries is its own."""

    version: Version
    load_address: int
    header_bytes: int
    payload_bytes: int
    flags: int
    tlvs: tuple[Tlv, ...]
    size_bytes: int
    digest: bytes
    hash_ok: bool

    def tlv(self, kind: int, *, protected: bool | None = None) -> bytes | None:
        for t in self.tlvs:
            if t.kind == kind and protected in (None, t.protected):
                return t.value
        return None

    @property
    def board(self) -> str:
        return (self.tlv(TLV_BOARD, protected=True) or b"").decode("utf-8", "replace")

    @property
    def security_counter(self) -> int:
        raw = self.tlv(TLV_SECURITY_COUNTER, protected=True)
        return int.from_bytes(raw, "little") if raw and len(raw) == 4 else 0

    @property
    def ar1_min(self) -> Version | None:
        """The AR1's version that this image needs at least; None when it needs none.

        Source of the layout: ``struct image_dependency`` of MCUboot: image number, three bytes of padding, version.
        """
        for t in self.tlvs:
            if t.kind == TLV_DEPENDENCY and t.protected and len(t.value) == _DEPENDENCY.size:
                image, *version = _DEPENDENCY.unpack(t.value)
                if image == AR1_IMAGE:
                    return Version(*version)
        return None

    @property
    def key_hash(self) -> bytes:
        return self.tlv(TLV_KEY_HASH) or b""


def looks_like(data: bytes) -> bool:
    return len(data) >= 4 and int.from_bytes(data[:4], "little") == MAGIC


def parse(data: bytes) -> Image:
    """Read an image; anything behind it (padding, a trailer) is left alone.

    Raises Damaged with field and offset; a wrong hash is not an error here but `Image.hash_ok`.
    """
    if not looks_like(data):
        raise HEADER.wrong("ih_magic", 0, f"is {data[:4].hex() or 'missing'}: not an MCUboot image")
    h = HEADER.parse(data)
    if h.ih_hdr_size < HEADER.size:
        raise HEADER.wrong("ih_hdr_size", 0, f"is {h.ih_hdr_size}, below {HEADER.size}")
    end = h.ih_hdr_size + h.ih_img_size
    if end > len(data):
        field = "ih_hdr_size" if h.ih_hdr_size > len(data) else "ih_img_size"
        told = f"is {getattr(h, field)}: the image is cut off, header and payload have {end} bytes, the file has {len(data)}"
        raise HEADER.wrong(field, 0, told)
    tlvs: list[Tlv] = []
    if h.ih_protect_tlv_size:
        end = _read_area(data, end, TLV_PROTECTED_MAGIC, tlvs, h.ih_protect_tlv_size)
    signed = data[:end]
    area, end = end, _read_area(data, end, TLV_MAGIC, tlvs, None)
    digest = hashlib.sha256(signed).digest()
    carried = next((t.value for t in tlvs if t.kind == TLV_SHA256 and not t.protected), None)
    if carried is None:
        raise _AREA.wrong("it_tlv_tot", area, "covers no SHA-256 (0x10): the image carries no hash")
    return Image(
        Version(h.iv_major, h.iv_minor, h.iv_revision, h.iv_build_num), h.ih_load_addr, h.ih_hdr_size, h.ih_img_size,
        h.ih_flags, tuple(tlvs), end, carried, hash_ok=carried == digest,
    )  # fmt: skip


def _read_area(data: bytes, at: int, magic: int, tlvs: list[Tlv], expected: int | None) -> int:
    area = _AREA.parse(data, at)
    if area.it_magic != magic:
        kind = "protected ones" if magic == TLV_PROTECTED_MAGIC else "those that are not protected"
        raise _AREA.wrong("it_magic", at, f"is {area.it_magic:#06x}, not {magic:#06x} of {kind}")
    if expected is not None and area.it_tlv_tot != expected:
        raise _AREA.wrong("it_tlv_tot", at, f"is {area.it_tlv_tot}, ih_protect_tlv_size is {expected}")
    end = at + int(area.it_tlv_tot)
    if area.it_tlv_tot < _AREA.size or end > len(data):
        raise _AREA.wrong(
            "it_tlv_tot", at, f"is {area.it_tlv_tot}: the image is cut off, {len(data) - at} bytes are left of it"
        )
    at += _AREA.size
    while at < end:
        if end - at < _ENTRY.size:
            raise _ENTRY.wrong("it_type", at, f"is cut off: {end - at} bytes are left of its area")
        entry = _ENTRY.parse(data, at)
        body = at + _ENTRY.size
        if entry.it_len > end - body:
            raise _ENTRY.wrong(
                "it_len", at, f"is {entry.it_len}: entry {entry.it_type:#04x} is longer than what is left of its area"
            )
        tlvs.append(Tlv(entry.it_type, data[body : body + entry.it_len], magic == TLV_PROTECTED_MAGIC))
        at = body + entry.it_len
    return end


def verify(image: Image, key: PublicKey) -> str:
    """Why the image must not be trusted with this key, or an empty text when hash, key and signature hold."""
    if not image.hash_ok:
        return "its hash does not match its content"
    if image.key_hash != key.id:
        return "it is signed with another key"
    if key.kind not in SIGNATURES:
        return f"keys of kind {key.kind} do not sign images"
    tlv, algorithm = SIGNATURES[key.kind]
    signature = image.tlv(tlv, protected=False)
    if signature is None:
        return f"it carries no {algorithm.value} signature"
    if not key.verifies(algorithm, image.digest, signature, prehashed=True):
        return "its signature does not verify"
    return ""


def build(
    payload: bytes,
    *,
    version: Version,
    load_address: int,
    header_bytes: int,
    board: str,
    security_counter: int,
    public_key: PublicKey,
    sign: Callable[[bytes], bytes],
    ar1_min: Version | None = None,
) -> bytes:
    """A signed image; ``ar1_min`` is the least version of the AR1's image that it works with.

    ``sign`` gets the message (Ed25519: the image's SHA-256; ECDSA: header to protected TLVs).

    Raises InputWrong for a key of another kind.
    """
    if public_key.kind not in SIGNATURES:
        raise InputWrong(
            f"a key of kind {public_key.kind} does not sign MCUboot images", hint="Ed25519 and ECDSA P-256 do"
        )
    tlv, _ = SIGNATURES[public_key.kind]
    v = version
    entries = [(TLV_SECURITY_COUNTER, security_counter.to_bytes(4, "little")), (TLV_BOARD, board.encode())]
    if ar1_min:
        d = ar1_min
        entries.insert(0, (TLV_DEPENDENCY, _DEPENDENCY.pack(AR1_IMAGE, d.major, d.minor, d.revision, d.build)))
    protected = _area(TLV_PROTECTED_MAGIC, entries)
    header = HEADER.build(
        ih_magic=MAGIC, ih_load_addr=load_address, ih_hdr_size=header_bytes, ih_protect_tlv_size=len(protected),
        ih_img_size=len(payload), ih_flags=FLAG_RAM_LOAD, iv_major=v.major, iv_minor=v.minor, iv_revision=v.revision,
        iv_build_num=v.build,
    ).ljust(header_bytes, b"\0")  # fmt: skip
    signed = header + payload + protected
    digest = hashlib.sha256(signed).digest()
    return signed + _area(
        TLV_MAGIC,
        [
            (TLV_SHA256, digest),
            (TLV_KEY_HASH, public_key.id),
            (tlv, sign(digest if tlv == TLV_ED25519 else signed)),
        ],
    )


def _area(magic: int, entries: Sequence[tuple[int, bytes]]) -> bytes:
    body = b"".join(TLV_INFO.pack(kind, len(value)) + value for kind, value in entries)
    return TLV_INFO.pack(magic, TLV_INFO.size + len(body)) + body
