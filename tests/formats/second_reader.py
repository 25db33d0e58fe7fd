"""Readers of vbmeta structures and super images, written a second time from the formats' definitions.

They share no code with quarkctl and know nothing of its classes: what both sides read the same was not misread together.
Only for tests. Sources: AOSP libavb ``avb_vbmeta_image.h`` and descriptors; liblp ``metadata_format.h``.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
from pathlib import Path


def be(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def le(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def vbmeta(data: bytes) -> dict[str, object]:
    assert data[:4] == b"AVB0"
    names = ("auth", "aux")
    auth_size, aux_size = be(data, 12, 8), be(data, 20, 8)
    blocks = dict(
        zip(names, (data[256 : 256 + auth_size], data[256 + auth_size : 256 + auth_size + aux_size]), strict=True)
    )
    algorithm = be(data, 28, 4)
    offsets = [be(data, 32 + 8 * n, 8) for n in range(10)]
    hash_, signature = (blocks["auth"][o : o + s] for o, s in (offsets[0:2], offsets[2:4]))
    key, _metadata, area = (blocks["aux"][o : o + s] for o, s in (offsets[4:6], offsets[6:8], offsets[8:10]))
    found = []
    while area:
        tag, size = struct.unpack(">QQ", area[:16])
        found.append(_descriptor(tag, area[: 16 + size]))
        area = area[16 + size :]
    return {
        "minor": be(data, 8, 4), "algorithm": algorithm, "hash": hash_, "signature": signature, "key": key,
        "rollback_index": be(data, 112, 8), "flags": be(data, 120, 4), "location": be(data, 124, 4),
        "release": data[128:176].rstrip(b"\0"), "descriptors": found, "signed": data[:256] + blocks["aux"],
    }  # fmt: skip


def _descriptor(tag: int, d: bytes) -> tuple[object, ...]:
    if tag == 0:
        k, v = be(d, 16, 8), be(d, 24, 8)
        return "property", d[32 : 32 + k], d[33 + k : 33 + k + v]
    if tag == 1:
        n, s, r = (be(d, at, 4) for at in (104, 108, 112))
        tail = d[180:]
        return (
            "hashtree", tail[:n], be(d, 20, 8), be(d, 28, 8), be(d, 36, 8), be(d, 44, 4), be(d, 48, 4), be(d, 52, 4),
            be(d, 56, 8), be(d, 64, 8), d[72:104].rstrip(b"\0"), tail[n : n + s], tail[n + s : n + s + r],
        )  # fmt: skip
    if tag == 2:
        n, s, r = (be(d, at, 4) for at in (56, 60, 64))
        tail = d[132:]
        return "hash", tail[:n], be(d, 16, 8), d[24:56].rstrip(b"\0"), tail[n : n + s], tail[n + s : n + s + r]
    if tag == 3:
        return "cmdline", be(d, 16, 4), d[24 : 24 + be(d, 20, 4)]
    assert tag == 4
    n, k = be(d, 20, 4), be(d, 24, 4)
    return "chain", d[92 : 92 + n], be(d, 16, 4), d[92 + n : 92 + n + k]


def openssl_verifies(parsed: dict[str, object], folder: Path) -> bool:
    """The key is rebuilt from the blob as PKCS#1 by hand; openssl does the rest."""
    key, signature = parsed["key"], parsed["signature"]
    assert isinstance(key, bytes) and isinstance(signature, bytes) and isinstance(parsed["signed"], bytes)
    size = be(key, 0, 4) // 8
    modulus = key[8 : 8 + size]

    def der(kind: int, body: bytes) -> bytes:
        length = len(body)
        return bytes([kind]) + (bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")) + body

    raw = der(0x30, der(2, b"\0" + modulus) + der(2, b"\1\0\1"))
    (folder / "key.der").write_bytes(raw)
    (folder / "sig").write_bytes(signature)
    (folder / "tbs").write_bytes(parsed["signed"])
    hash_name = "sha256" if parsed["algorithm"] in (1, 2, 3) else "sha512"
    subprocess.run(
        ["openssl", "rsa", "-RSAPublicKey_in", "-inform", "DER", "-in", "key.der", "-pubout", "-out", "key.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    done = subprocess.run(
        ["openssl", "dgst", f"-{hash_name}", "-verify", "key.pem", "-signature", "sig", "tbs"], cwd=folder,
        capture_output=True,
    )  # fmt: skip
    return done.stdout == b"Verified OK\n"


def super_image(data: bytes, slot: int, *, backup: bool) -> dict[str, object]:
    at = 8192 if backup else 4096
    geometry = data[at : at + 52]
    assert le(geometry, 0, 4) == 0x616C4467
    assert hashlib.sha256(geometry[:8] + bytes(32) + geometry[40:]).digest() == geometry[8:40]
    size, slots, block = struct.unpack("<III", geometry[40:52])
    start = 4096 + 8192 + size * (slot + (slots if backup else 0))
    header_size = le(data, start + 8, 4)
    header = data[start : start + header_size]
    assert le(header, 0, 4) == 0x414C5030 and le(header, 4, 2) == 10
    assert hashlib.sha256(header[:12] + bytes(32) + header[44:]).digest() == header[12:44]
    tables = data[start + header_size :][: le(header, 44, 4)]
    assert hashlib.sha256(tables).digest() == header[48:80]

    def rows(n: int) -> list[bytes]:
        offset, count, width = struct.unpack_from("<III", header, 80 + 12 * n)
        return [tables[offset + i * width :][:width] for i in range(count)]

    extents = [struct.unpack("<QIQI", r) for r in rows(1)]
    groups = [(r[:36].rstrip(b"\0").decode(), le(r, 40, 8)) for r in rows(2)]
    partitions = {}
    for r in rows(0):
        attributes, first, count, group = struct.unpack("<IIII", r[36:52])
        content = b"".join(
            bytes(n * 512) if kind else data[where * 512 : (where + n) * 512]
            for n, kind, where, _ in extents[first : first + count]
        )
        partitions[r[:36].rstrip(b"\0").decode()] = (groups[group][0], attributes, content)
    devices = [(r[24:60].rstrip(b"\0").decode(), le(r, 0, 8), le(r, 8, 4), le(r, 16, 8)) for r in rows(3)]
    return {
        "minor": le(header, 6, 2), "flags": le(header, 128, 4) if header_size == 256 else 0, "groups": groups,
        "partitions": partitions, "devices": devices, "slots": slots, "block": block,
    }  # fmt: skip
