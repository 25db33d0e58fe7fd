"""Application images of the ESP32 family, as far as flashing needs to know them.

Source: Espressif, "App Image Format" (ESP-IDF documentation): header of 24 bytes with the chip's number, first segment
header of 8 bytes, then the application's description where there is one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = 0xE9
_HEADER_BYTES = 24
_CHIP_ID = struct.Struct("<H")
_CHIP_ID_OFFSET = 12
_DESCRIPTION_OFFSET = _HEADER_BYTES + 8
_DESCRIPTION_MAGIC = bytes.fromhex("3254cdab")
#: Chip numbers in images (ESP-IDF ``esp_chip_id_t``) and the names that esptool takes.
CHIPS = {0: "esp32", 2: "esp32s2", 5: "esp32c3", 9: "esp32s3", 12: "esp32c2", 13: "esp32c6", 16: "esp32h2"}


@dataclass(frozen=True)
class EspImage:
    """``chip`` is empty for a number that is not known here; ``name`` and ``version`` where there is no description."""

    chip: str
    name: str
    version: str


def parse(data: bytes) -> EspImage | None:
    """None when the bytes are no image (a partition table, a file system): those are written as they are."""
    if len(data) < _DESCRIPTION_OFFSET or data[0] != MAGIC:
        return None
    chip = CHIPS.get(_CHIP_ID.unpack_from(data, _CHIP_ID_OFFSET)[0], "")
    description = data[_DESCRIPTION_OFFSET : _DESCRIPTION_OFFSET + 256]
    if description[:4] != _DESCRIPTION_MAGIC:
        return EspImage(chip, "", "")
    # magic, secure version, 8 reserved bytes, version and name of 32 bytes each
    return EspImage(chip, _text(description[48:80]), _text(description[16:48]))


def _text(field: bytes) -> str:
    return "".join(c for c in field.partition(b"\0")[0].decode("utf-8", "replace") if c.isprintable())
