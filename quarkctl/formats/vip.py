"""Digest tables of validated image programming (VIP): what a programmer takes where secure boot is on, packet by packet.

Source: linux-msm/qdl, ``vip.c``. A packet is one XML document or one piece of raw data; its SHA-256 stands in the tables in
the order of sending. Each table ends in the digest of the next one; only the first is signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from quarkctl.errors import InputWrong

#: Packets of a table, besides the digest of the next one.
SIGNED_COUNT, CHAINED_COUNT = 53, 255
#: qdl takes so many chained tables; programmers are not known to take more.
CHAINED_MAX = 32
PACKETS_MAX = SIGNED_COUNT + CHAINED_COUNT * CHAINED_MAX
#: File names that qdl and signing tools use; the signed table is the first one in an MBN.
TO_SIGN_NAME, SIGNED_NAME, CHAINED_NAME = "DigestsToSign.bin", "DigestsToSign.bin.mbn", "ChainedTableOfDigests{}.bin"


@dataclass(frozen=True)
class Tables:
    """``to_sign`` is wrapped and signed before it is used; ``chained`` follow as they are."""

    to_sign: bytes
    chained: tuple[bytes, ...]

    def files(self) -> dict[str, bytes]:
        """By the names that qdl knows."""
        return {TO_SIGN_NAME: self.to_sign, **{CHAINED_NAME.format(n): t for n, t in enumerate(self.chained)}}


def build(digests: Sequence[bytes]) -> Tables:
    """Tables of packets, given by their SHA-256 in order. Raises InputWrong for more than programmers take."""
    if not digests or len(digests) > PACKETS_MAX:
        raise InputWrong(
            f"{len(digests)} packets do not fit digest tables: they hold 1 to {PACKETS_MAX}",
            hint="a larger payload makes fewer packets",
        )
    rest = [
        b"".join(digests[at : at + CHAINED_COUNT]) for at in range(SIGNED_COUNT, len(digests), CHAINED_COUNT)
    ]  # fmt: skip
    following = b""
    chained: list[bytes] = []
    for number, table in enumerate(reversed(rest)):
        # The last table gets a byte more: its transfer must not be a whole number of packets.
        whole = table + (following if number else b"\0")
        following = hashlib.sha256(whole).digest()
        chained.insert(0, whole)
    return Tables(b"".join(digests[:SIGNED_COUNT]) + following, tuple(chained))
