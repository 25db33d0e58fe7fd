"""Compression of kernels and ramdisks, the same bytes each time."""

from __future__ import annotations

import gzip as _gzip
import struct
import zlib
from typing import Any

from quarkctl.formats.record import Damaged

_LZ4_LEGACY = 0x184C2102
#: The kernel unpacks the legacy frame in blocks of 8 MiB.
_LZ4_BLOCK = 8 << 20
_STEP_BYTES = 1024


def compress(data: bytes, how: str) -> bytes:
    """``none``, ``gzip`` (no name, no time), ``lz4`` (the legacy frame that Linux unpacks) or ``zstd``."""
    if how == "gzip":
        return _gzip.compress(data, 6, mtime=0)
    if how == "lz4":
        import lz4.block

        out = [struct.pack("<I", _LZ4_LEGACY)]
        for at in range(0, len(data), _LZ4_BLOCK):
            block = lz4.block.compress(
                data[at : at + _LZ4_BLOCK], mode="high_compression", compression=9, store_size=False
            )
            out += [struct.pack("<I", len(block)), block]
        return b"".join(out)
    if how == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=9, write_checksum=True, write_content_size=True).compress(data)
    return data


def kind_of(data: bytes) -> str:
    """How data is compressed, by its first bytes; ``none`` for anything else."""
    if data[:2] == b"\x1f\x8b":
        return "gzip"
    if data[:4] == struct.pack("<I", _LZ4_LEGACY):
        return "lz4"
    return "zstd" if data[:4] == b"\x28\xb5\x2f\xfd" else "none"


def expand(data: bytes, bytes_max: int) -> bytes:
    """The content, of at most ``bytes_max`` bytes. Raises InputWrong (Damaged) for damaged, cut or larger data."""
    how = kind_of(data)
    if how == "gzip":
        out = _expand_stream(data, bytes_max, "gzip data", zlib.decompressobj(31), zlib.error)
    elif how == "lz4":
        out = _expand_lz4(data, bytes_max)
    elif how == "zstd":
        import zstandard

        stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        out = _expand_stream(data, bytes_max, "zstd data", stream, zstandard.ZstdError)
    else:
        out = data
    if len(out) > bytes_max:
        raise Damaged(f"{how} data", "content", 0, f"expands to more than {bytes_max} bytes")
    return out


def _expand_stream(data: bytes, bytes_max: int, what: str, stream: Any, error: type[Exception]) -> bytes:
    """In small steps, which say where something is wrong and bound what a step expands to."""
    out = bytearray()
    for at in range(0, len(data), _STEP_BYTES):
        try:
            out += stream.decompress(data[at : at + _STEP_BYTES])
        except error as found:
            raise Damaged(what, "block", at, f"is damaged, or one of the next {_STEP_BYTES} bytes: {found}") from found
        if stream.eof or len(out) > bytes_max:
            return bytes(out)
    raise Damaged(what, "end", len(data), "is missing: the file is cut off")


def _expand_lz4(data: bytes, bytes_max: int) -> bytes:
    import lz4.block

    out, at = bytearray(), 4
    while at + 4 <= len(data) and len(out) <= bytes_max:
        size = int.from_bytes(data[at : at + 4], "little")
        if size == _LZ4_LEGACY:  # another frame follows
            at += 4
            continue
        if not size:
            break
        if at + 4 + size > len(data):
            raise Damaged(
                "lz4 data", "block size", at, f"is {size}, {len(data) - at - 4} bytes follow: they are cut off"
            )
        try:
            out += lz4.block.decompress(data[at + 4 : at + 4 + size], uncompressed_size=_LZ4_BLOCK)
        except lz4.block.LZ4BlockError as found:
            raise Damaged("lz4 data", "block", at + 4, f"is damaged: {found}") from found
        at += 4 + size
    return bytes(out)
