"""Images in several files: sparse ones of one partition, ``NAME.img.0`` and on, as builds write them for devices that take
little at once. Each claims all blocks and holds some of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from quarkctl.errors import InputWrong
from quarkctl.flash.ar1_image import Image

_PART = re.compile(r"(.+\.s?img)\.(0|[1-9]\d{0,3})")


def whole_name(path: Path) -> str:
    """``super.img`` of ``super.img.3``; the name as it is of every other file."""
    found = _PART.fullmatch(path.name)
    return found[1] if found else path.name


def check_complete(paths: Iterable[Path]) -> None:
    """Raises InputWrong where a part is missing, or lies there and was not named: half an image would be written."""
    named: dict[Path, set[int]] = {}
    for path in paths:
        if found := _PART.fullmatch(path.name):
            named.setdefault(path.with_name(found[1]), set()).add(int(found[2]))
    for whole, numbers in named.items():
        beside = {int(p.name[len(whole.name) + 1 :]) for p in whole.parent.glob(f"{_literal(whole.name)}.*")
                  if _PART.fullmatch(p.name)}  # fmt: skip
        missing = sorted(set(range(max(numbers | beside) + 1)) - numbers)
        if missing:
            names = ", ".join(f"{whole.name}.{n}" for n in missing[:5])
            raise InputWrong(
                f"{names} {'is' if len(missing) == 1 else 'are'} missing: {whole.name} is split into several files",
                hint="give all of them, or the folder",
            )


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def check_apart(what: str, images: Sequence[tuple[int, Image]]) -> None:
    """(where it begins in bytes, image) each. Raises InputWrong for two that write the same bytes of ``what``."""
    spans = sorted(
        (at + e.offset, at + e.offset + e.size_bytes, image.path.name) for at, image in images for e in image.extents
    )
    for (_, end, name), (start, _, other) in pairwise(spans):
        if start < end:
            raise InputWrong(
                f"{name} and {other} overlap in {what}: both write byte {start}",
                hint="give one image for each partition, or parts of one",
            )
