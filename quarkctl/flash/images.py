"""Which image is meant when a folder of builds is named."""

from __future__ import annotations

from pathlib import Path

from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats import mcuboot_image
from quarkctl.formats.mcuboot_image import Version

#: No image of a microcontroller is larger.
IMAGE_MAX_BYTES = 64 << 20


def newest(folder: Path) -> Path:
    """The image of the highest version in a folder of builds; test images that fail on purpose are left out.

    Raises InputWrong when there is none.
    """
    found = {}
    for path in folder.glob("rtos-*.bin"):
        try:
            found[Version.parse(path.stem.removeprefix("rtos-"))] = path
        except UsageWrong:
            continue
    if not found:
        raise InputWrong(f"there is no firmware in {folder}", hint="quarkctl build rtos --board BOARD builds some")
    return found[max(found)]


def program_of(image: Path) -> bytes:
    """The ELF file beside an image, empty if there is none: `build rtos` puts it there."""
    chosen = newest(image) if image.is_dir() else image
    try:
        return chosen.with_suffix(".elf").read_bytes()
    except OSError:
        return b""


def load(path: Path) -> bytes:
    """A whole image file, or the newest in a folder. Raises InputWrong, also when it is no image at all."""
    path = newest(path) if path.is_dir() else path
    try:
        with path.open("rb") as file:
            data = file.read(IMAGE_MAX_BYTES + 1)
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
    if len(data) > IMAGE_MAX_BYTES:
        raise InputWrong(f"{path} is larger than 64 MiB: no image of a microcontroller")
    try:
        mcuboot_image.parse(data)
    except InputWrong as error:
        raise InputWrong(f"{path}: {error.message}", error.hint) from error
    return data
