"""Validated image programming: a programmer that takes only packets whose digests stand in a table, in their order.

Source: linux-msm/qdl, ``vip.c``: a signed table of 53 digests and the digest of the next table; chained tables of 255
digests and the next one's. The signature around the first table is not modelled.
"""

from __future__ import annotations

import hashlib

_DIGEST = 32
_SIGNED_COUNT = 53
_CHAINED_COUNT = 255


class Refusal(Exception):
    """A packet that is not the next one of the table."""


class Vip:
    """Takes every packet that comes from the host, zero-length ones excepted."""

    def __init__(self) -> None:
        self._left: list[bytes] = []
        self._next_table = b""
        self._started = False
        #: The packet just taken was a table.
        self.table_taken = False

    @property
    def table_due(self) -> bool:
        """The next packet must be a table."""
        return not self._left

    def take(self, packet: bytes) -> None:
        """Raises Refusal."""
        self.table_taken = False
        if not self._started:
            self._load(packet, _SIGNED_COUNT)
            self._started = True
            return
        digest = hashlib.sha256(packet).digest()
        if not self._left:
            if digest != self._next_table:
                raise Refusal("the next table of digests is not the expected one")
            self._load(packet, _CHAINED_COUNT)
            return
        if digest != self._left.pop(0):
            raise Refusal("the digest of a packet is not the next one of the table")

    def _load(self, table: bytes, limit: int) -> None:
        digests = [table[at : at + _DIGEST] for at in range(0, len(table) - _DIGEST + 1, _DIGEST)]
        self._left = digests[:limit]
        self._next_table = digests[limit] if len(digests) > limit else b""
        self.table_taken = True
