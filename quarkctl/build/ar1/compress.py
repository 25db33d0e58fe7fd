"""Compression of kernels and ramdisks, the same bytes each time."""

from __future__ import annotations

import gzip as _gzip
import struct
import zlib

from quarkctl.errors import InputWrong

_LZ4_LEGACY = 0x184C2102
#: The kernel unpacks the legacy frame in blocks of 8 MiB.
_LZ4_BLOCK = 8 << 20


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
    """The content, at most ``bytes_max`` bytes of it. Raises InputWrong for damaged or larger data."""
    how = kind_of(data)
    try:
        if how == "gzip":
            stream = zlib.decompressobj(31)
            out = stream.decompress(data, bytes_max + 1)
        elif how == "lz4":
            out = _expand_lz4(data, bytes_max)
        elif how == "zstd":
            import zstandard

            with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as reader:
                out = reader.read(bytes_max + 1)
        else:
            out = data
    except Exception as error:
        if type(error).__module__.partition(".")[0] in (
            "zlib",
            "_lz4",
            "lz4",
            "zstd",
            "zstandard",
            "builtins",
            "struct",
        ):
            raise InputWrong(f"{how} data is damaged: {error}") from error
        raise
    if len(out) > bytes_max:
        raise InputWrong(f"{how} data expands to more than {bytes_max} bytes")
    return out


def _expand_lz4(data: bytes, bytes_max: int) -> bytes:
    import lz4.block

    out, at = bytearray(), 4
    while at + 4 <= len(data) and len(out) <= bytes_max:
        size = int.from_bytes(data[at : at + 4], "little")
        if size == _LZ4_LEGACY:  # another frame follows
            at += 4
            continue
        if not size or at + 4 + size > len(data):
            break
        out += lz4.block.decompress(data[at + 4 : at + 4 + size], uncompressed_size=_LZ4_BLOCK)
        at += 4 + size
    return bytes(out)
