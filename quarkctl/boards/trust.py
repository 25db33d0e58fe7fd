"""Whose bundles a product takes: the keys pinned in its profile, and the trust documents installed since.

Documents lie in the state folder, one file each, ``trust/<product>/<number>.json``. They prove themselves: at each loading
every one is verified by the keys of the one before it, down to those of the profile. A product whose profile has no keys
takes the first document that the user pins.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path

from quarkctl import boards, files, state
from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.formats import bundle, canonical, trust
from quarkctl.formats.bundle import Manifest
from quarkctl.formats.bundle_reader import Head
from quarkctl.formats.signature import PublicKey
from quarkctl.formats.trust import Trust, TrustedKey, Untrusted

_DOCUMENT_BYTES_MAX = 1 << 20
_DOCUMENTS_MAX = 1000


def today() -> date:
    return datetime.now(UTC).date()


def is_production(product: str) -> bool:
    """Is it a product for sale, which takes no development keys? One that is not known is."""
    return product not in boards.names() or bool(boards.load(product).get("product.production", False))


@cache
def development_key_ids() -> frozenset[str]:
    """Ids (hex) of all keys whose private half is public."""
    return frozenset(
        PublicKey.from_raw(bytes.fromhex(fact.value)).id.hex()
        for name in boards.names()
        for key, fact in boards.load(name).facts.items()
        if key.endswith(".key.development")
    )


def load(product: str) -> Trust:
    """The trust of a product today. Raises Untrusted where nobody may sign for it, InputWrong for damaged documents."""
    current = _pinned(product)
    if current is None:
        raise Untrusted(
            f"no keys are known that may sign for {product}",
            hint="pin those of its maker: quarkctl keys trust FILE",
        )
    for number in range(current.number + 1, _DOCUMENTS_MAX):
        data = _read(_path(product, number))
        if data is None:
            break
        envelope, after = trust.read(data)
        trust.follow(current, envelope, after)
        current = after
    if is_production(product):
        trust.refuse_development(current, development_key_ids())
    return current


def install(data: bytes, *, pin: bool = False) -> Trust:
    """Take a trust document into the store. ``pin``: it may be the first of a product without keys.

    Raises Untrusted when it does not follow from what is trusted now.
    """
    envelope, after = trust.read(data)
    if after.expires and after.expires < today():
        raise Untrusted(f"the trust document was valid until {after.expires}")
    if is_production(after.product):
        trust.refuse_development(after, development_key_ids())
    if needs_pin(after.product):
        if after.number != 1 or not pin:
            raise Untrusted(
                f"no keys are pinned for {after.product}", hint="begin with its first trust document, and with a yes"
            )
        after.require(envelope, today())
    else:
        trust.follow(load(after.product), envelope, after)
    _write(_path(after.product, after.number), data)
    return after


def needs_pin(product: str) -> bool:
    """Nobody may sign for it yet."""
    return _pinned(product) is None


def open_bundle(head: Head) -> tuple[Manifest, Trust, tuple[TrustedKey, ...]]:
    """The manifest of a bundle that is signed by those who may, with who signed it.

    What product the bundle claims only chooses the keys; by those the claim itself is verified with everything else,
    before anything else is read. Raises Untrusted, InputWrong.
    """
    claimed = canonical.parse(head.envelope.payload, "the manifest").get("product")
    if not isinstance(claimed, str) or not bundle.NAME.fullmatch(claimed):
        raise InputWrong("the manifest names no product")
    now = load(claimed)
    signed = now.require(head.envelope, today())
    now.require(head.provenance, today())
    return bundle.parse(head.envelope.payload), now, signed


def products() -> list[str]:
    """Products with keys: in a profile or pinned."""
    pinned = state.root() / "trust"
    stored = sorted(p.name for p in pinned.iterdir() if p.is_dir()) if pinned.is_dir() else []
    return [n for n in dict.fromkeys([*boards.names(), *stored]) if _pinned(n) is not None]


def _pinned(product: str) -> Trust | None:
    """The first trust of a product: keys of its profile, else the document that the user pinned."""
    if product in boards.names():
        board = boards.load(product)
        keys = {k.removeprefix("bundle.key."): f for k, f in board.facts.items() if k.startswith("bundle.key.")}
        if keys:
            first = Trust(
                product, 1, board.get("bundle.threshold", 1),
                tuple(TrustedKey(n, PublicKey.from_raw(bytes.fromhex(f.value)), n == "development")
                      for n, f in keys.items()),
            )  # fmt: skip
            trust.check(first)
            return first
    if not bundle.NAME.fullmatch(product):
        return None
    data = _read(_path(product, 1))
    if data is None:
        return None
    envelope, first = trust.read(data)
    if (first.product, first.number) != (product, 1):
        raise InputWrong(f"{_path(product, 1)} is the trust document of {first.product} {first.number}")
    # Its own keys must have signed it: what was pinned is what its maker made.
    first.require(envelope, date.min)
    return first


def _path(product: str, number: int) -> Path:
    return state.root() / "trust" / product / f"{number}.json"


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_DOCUMENT_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostUnfit(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    state.folder(f"trust/{path.parent.name}")
    with files.replacing(path) as temporary:
        temporary.write_bytes(data)
