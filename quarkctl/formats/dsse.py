"""Signed documents: the envelope of DSSE, with one signature or several.

Source: DSSE v1.0 (secure-systems-lab/dsse, envelope.md and protocol.md). Signed is the pre-authentication encoding, which
holds the type, so that a document of one kind never passes for one of another. ``keyid`` is the SHA-256 of the key's
SubjectPublicKeyInfo, in hex. Our envelopes are canonical JSON with the signatures sorted by keyid.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats import canonical
from quarkctl.formats.signature import Algorithm, PublicKey

SIGNATURES_MAX = 16
_SIGNATURE_BYTES_MAX = 1024


@dataclass(frozen=True)
class Envelope:
    """A payload and its signatures by key id (hex). Nothing is verified yet."""

    payload_type: str
    payload: bytes
    signatures: Mapping[str, bytes]

    @property
    def message(self) -> bytes:
        """What a signature is over."""
        return pae(self.payload_type, self.payload)

    def with_signature(self, key_id: str, signature: bytes) -> Envelope:
        """The same document, also signed by that key; an older signature of the same key is replaced."""
        return Envelope(self.payload_type, self.payload, {**self.signatures, key_id: signature})


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: lengths in decimal, so that nothing can be moved between the two fields."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def build(envelope: Envelope) -> bytes:
    signatures = [{"keyid": k, "sig": _text(s)} for k, s in sorted(envelope.signatures.items())]
    return canonical.build(
        {"payload": _text(envelope.payload), "payloadType": envelope.payload_type, "signatures": signatures}
    )


def parse(data: bytes, what: str) -> Envelope:
    """Read an envelope of ours. Raises InputWrong."""
    raw = canonical.parse(data, what)
    try:
        listed = raw["signatures"]
        signatures = {str(s["keyid"]): _bytes(s["sig"]) for s in listed}
        envelope = Envelope(str(raw["payloadType"]), _bytes(raw["payload"]), signatures)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InputWrong(f"{what} is no DSSE envelope: {error}") from error
    if len(signatures) > SIGNATURES_MAX or any(len(s) > _SIGNATURE_BYTES_MAX for s in signatures.values()):
        raise InputWrong(f"{what} has more or longer signatures than any of ours")
    if build(envelope) != data:
        raise InputWrong(f"{what} is no canonical DSSE envelope")
    return envelope


def signers(envelope: Envelope, keys: Iterable[PublicKey]) -> list[PublicKey]:
    """Those of the keys that have signed. Signatures of other keys are nobody's business here.

    Raises InputWrong when a signature that claims one of the keys is not by it.
    """
    found = []
    for key in keys:
        signature = envelope.signatures.get(key.id.hex())
        if signature is None:
            continue
        if not key.verifies(algorithm(key), envelope.message, signature):
            raise InputWrong(
                f"the signature of key {key.id.hex()[:12]} does not verify: the content or the signature was changed"
            )
        found.append(key)
    return found


def algorithm(key: PublicKey) -> Algorithm:
    """How keys of this kind sign documents. Raises InputWrong for RSA."""
    for candidate in (Algorithm.ED25519, Algorithm.ECDSA_P256_SHA256):
        if candidate.key_kind == key.kind:
            return candidate
    raise InputWrong(f"a key of kind {key.kind} does not sign bundles", hint="Ed25519 and ECDSA P-256 do")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not a text")
    return base64.b64decode(text, validate=True)
