"""Make keys, and hand trust over from one set of keys to the next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from quarkctl.boards import trust as store
from quarkctl.build.bundle.seal import DEVELOPMENT_MARK, refuse_development
from quarkctl.build.sign import Signer, pem
from quarkctl.errors import HostUnfit, InputWrong, UsageWrong
from quarkctl.formats import dsse, trust
from quarkctl.formats.dsse import Envelope
from quarkctl.formats.signature import PublicKey
from quarkctl.formats.trust import Trust, TrustedKey

KINDS = ("ed25519", "ecdsa-p256")


def new(path: Path, kind: str, *, development: bool) -> PublicKey:
    """A private key in ``path``, for its owner only, and its public half in ``path``.pub. Never replaces a file.

    Raises UsageWrong, HostUnfit.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    if kind not in KINDS:
        raise UsageWrong(f"no key kind {kind!r}", hint=f"there are {', '.join(KINDS)}")
    made = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    mark = f"{DEVELOPMENT_MARK}\n".encode() if development else b""
    private = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _create(path, mark + private, 0o600)
    _create(path.with_name(path.name + ".pub"), mark + public, 0o644)
    return PublicKey.of(made.public_key())


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise UsageWrong(f"{path} exists already: a key is never replaced", hint="choose another name") from error
    except OSError as error:
        raise HostUnfit(f"cannot write {path}: {error.strerror}") from error


def trusted_key(path: Path, name: str = "") -> TrustedKey:
    """A key to be trusted, from a PEM file; a mark as a development key in the file stays with it. Raises InputWrong."""
    key = pem.public(path)
    dsse.algorithm(key)
    marked = DEVELOPMENT_MARK.encode() in pem.read(path)[:4096] or key.id.hex() in store.development_key_ids()
    return TrustedKey(name or path.name.removesuffix(".pub").removesuffix(".pem"), key, marked)


def rotate(
    product: str,
    signers: Sequence[Signer],
    *,
    add: Sequence[TrustedKey] = (),
    remove: Sequence[str] = (),
    revoke: Sequence[str] = (),
    threshold: int = 0,
    expires: date | None = None,
) -> tuple[Trust, bytes]:
    """The next trust document of a product, signed by the given keys; for a product without keys the first one.

    ``remove`` and ``revoke`` name keys by name or the start of their id. Raises InputWrong, UsageWrong.
    """
    before = Trust(product, 0, 1, ()) if store.needs_pin(product) else store.load(product)
    gone = {_named(before, n).key_id for n in [*remove, *revoke]}
    bad = {_named(before, n).key_id for n in revoke}
    kept = tuple(k for k in before.keys if k.key_id not in gone)
    after = replace(
        before, number=before.number + 1, keys=(*kept, *add), threshold=threshold or before.threshold,
        revoked=tuple(sorted({*before.revoked, *bad})), expires=expires,
    )  # fmt: skip
    trust.check(after)
    if store.is_production(product):
        trust.refuse_development(after, store.development_key_ids())
    return after, endorse(Envelope(trust.PAYLOAD_TYPE, trust.build(after), {}), product, signers)


def endorse(envelope: Envelope, product: str, signers: Sequence[Signer]) -> bytes:
    """A trust document with more signatures. Raises InputWrong, SignaturesWanted."""
    for signer in signers:
        if store.is_production(product):
            refuse_development(signer, product)
        algorithm = dsse.algorithm(signer.public_key)
        signature = signer.sign(envelope.message, f"trust-{product}", algorithm)
        envelope = envelope.with_signature(signer.public_key.id.hex(), signature)
        signer.finish()
    return dsse.build(envelope)


def _named(before: Trust, name: str) -> TrustedKey:
    found = [k for k in before.keys if name == k.name or (len(name) >= 8 and k.key_id.startswith(name))]
    if len(found) != 1:
        there = ", ".join(f"{k.name} {k.key_id[:12]}" for k in before.keys)
        raise InputWrong(f"no key {name!r} is trusted for {before.product}", hint=f"there are {there or 'none'}")
    return found[0]
