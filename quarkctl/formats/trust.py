"""Who may sign for a product: keys, how many of them, which are revoked, until when.

A trust document is canonical JSON in a DSSE envelope. Each has a number; document N + 1 must be signed by the threshold
of document N and by its own, as The Update Framework has it for its root (TUF specification, 5.3): so keys are changed by
those who hold the old ones, and only to keys that somebody really holds.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date

from quarkctl.errors import InputWrong
from quarkctl.formats import canonical, dsse
from quarkctl.formats.bundle import NAME
from quarkctl.formats.dsse import Envelope
from quarkctl.formats.fields import Fields
from quarkctl.formats.signature import PublicKey

SCHEMA = "quarkctl.trust/1"
PAYLOAD_TYPE = "application/vnd.quarkctl.trust+json"
KEYS_MAX = 16


class Untrusted(InputWrong):
    """Signed by nobody who may, or by too few."""


@dataclass(frozen=True)
class TrustedKey:
    """``development``: its private half is public or lies on somebody's disk; good for virtual devices only."""

    name: str
    public_key: PublicKey
    development: bool = False

    @property
    def key_id(self) -> str:
        return self.public_key.id.hex()


@dataclass(frozen=True)
class Trust:
    """``expires``: the last day on which it holds; None means always."""

    product: str
    number: int
    threshold: int
    keys: tuple[TrustedKey, ...]
    revoked: tuple[str, ...] = ()
    expires: date | None = None

    def require(self, envelope: Envelope, today: date) -> tuple[TrustedKey, ...]:
        """The keys that signed, at least as many as the threshold. Raises Untrusted, InputWrong for a false signature."""
        if self.expires and today > self.expires:
            raise Untrusted(
                f"the keys for {self.product} were valid until {self.expires}",
                hint="get the newer trust document and install it: quarkctl keys trust FILE",
            )
        signed = dsse.signers(envelope, [k.public_key for k in self.keys])
        if len(signed) < self.threshold:
            raise Untrusted(self._why(envelope, len(signed)), hint="quarkctl keys show --product " + self.product)
        return tuple(k for k in self.keys if k.public_key in signed)

    def _why(self, envelope: Envelope, count: int) -> str:
        if not envelope.signatures:
            return f"not signed; {self.product} takes only what is"
        gone = [k for k in envelope.signatures if k in self.revoked]
        if gone:
            return f"signed with key {gone[0][:12]}, which is revoked for {self.product}"
        if count:
            return f"signed by {count} of the {self.threshold} keys that {self.product} demands"
        names = ", ".join(k[:12] for k in envelope.signatures)
        return f"signed with key {names}, which is not trusted for {self.product}"


def build(trust: Trust) -> bytes:
    t = trust
    return canonical.build(
        {
            "schema": SCHEMA, "product": t.product, "number": t.number, "threshold": t.threshold,
            "keys": [{"name": k.name, "public_key": base64.b64encode(k.public_key.spki).decode(),
                      "development": k.development} for k in t.keys],
            "revoked": list(t.revoked), "expires": t.expires.isoformat() if t.expires else "",
        }
    )  # fmt: skip


def parse(data: bytes) -> Trust:
    """Raises InputWrong."""
    raw = Fields(canonical.parse(data, "the trust document"), "the trust document")
    if raw.text("schema") != SCHEMA:
        raise InputWrong("the trust document is of a kind that this quarkctl does not know")
    keys = []
    for k in raw.objects("keys"):
        keys.append(TrustedKey(k.text("name"), PublicKey(k.base64("public_key")), k.flag("development")))
        k.end()
    expires = raw.text("expires")
    try:
        until = date.fromisoformat(expires) if expires else None
    except ValueError as error:
        raise InputWrong(f"the trust document expires at {expires!r}, which is no day") from error
    trust = Trust(
        raw.text("product"), raw.number("number", 1), raw.number("threshold", 1, KEYS_MAX), tuple(keys),
        raw.texts("revoked"), until,
    )  # fmt: skip
    raw.end()
    check(trust)
    return trust


def check(trust: Trust) -> None:
    """What must hold in every trust document. Raises InputWrong."""
    ids = [k.key_id for k in trust.keys]
    if len(set(ids)) != len(ids) or not 1 <= trust.threshold <= len(ids) <= KEYS_MAX:
        raise InputWrong(f"a threshold of {trust.threshold} with {len(set(ids))} different keys cannot be met")
    if set(ids) & set(trust.revoked):
        raise InputWrong("a key is trusted and revoked at once")
    for k in trust.keys:
        dsse.algorithm(k.public_key)
        if not NAME.fullmatch(k.name):
            raise InputWrong(f"{k.name!r} is no name of a key")


def read(data: bytes) -> tuple[Envelope, Trust]:
    """A trust document from its file, its signatures not yet verified. Raises InputWrong."""
    envelope = dsse.parse(data, "the trust document")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InputWrong(f"this is no trust document but {envelope.payload_type[:80]}")
    return envelope, parse(envelope.payload)


def follow(before: Trust, envelope: Envelope, after: Trust) -> None:
    """May the new document replace the old one? Raises Untrusted."""
    if after.product != before.product:
        raise Untrusted(f"the trust document is for {after.product}, not for {before.product}")
    if after.number != before.number + 1:
        raise Untrusted(
            f"trust document {after.number} cannot follow {before.number}",
            hint="install them one after the other" if after.number > before.number else "a newer one is installed",
        )
    # An expired set of keys may still hand over to the next one: otherwise nobody ever could.
    for trust in (before, after):
        replace(trust, expires=None).require(envelope, date.min)


def refuse_development(trust: Trust, known: Collection[str]) -> None:
    """For a product marked production. ``known``: ids of keys whose private half is public. Raises Untrusted."""
    for k in trust.keys:
        if k.development or k.key_id in known:
            raise Untrusted(
                f"key {k.name} is a development key; {trust.product} is a product for sale",
                hint="make a key for it: quarkctl keys new, best in a token",
            )
