"""The signatures of a bundle: one envelope around the manifest, one around the provenance, always signed together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quarkctl.boards import trust
from quarkctl.build.sign import Signer
from quarkctl.errors import InputWrong
from quarkctl.formats import bundle, dsse
from quarkctl.formats.bundle import Manifest
from quarkctl.formats.dsse import Envelope

#: Stands in front of the PEM block of a key that may sign nothing for sale.
DEVELOPMENT_MARK = "quarkctl development key: for virtual devices and trials, never for products"


@dataclass(frozen=True)
class Seal:
    manifest: Envelope
    provenance: Envelope

    @staticmethod
    def new(manifest: bytes, provenance: bytes) -> Seal:
        """Not signed yet."""
        return Seal(Envelope(bundle.PAYLOAD_TYPE, manifest, {}), Envelope(bundle.PROVENANCE_TYPE, provenance, {}))

    def signed(self, signers: Sequence[Signer], what: str) -> Seal:
        """Also signed by these keys. ``what`` names the bundle in logs and requests. Raises InputWrong."""
        made = self
        for signer in signers:
            algorithm = dsse.algorithm(signer.public_key)
            manifest = signer.sign(made.manifest.message, f"{what}-manifest", algorithm)
            provenance = signer.sign(made.provenance.message, f"{what}-provenance", algorithm)
            made = made._with(signer, manifest, provenance)
        return made

    def reserved(self, signers: Sequence[Signer]) -> Seal:
        """As long as `signed` makes it, nearly always: without asking the keys."""
        made = self
        for signer in signers:
            blank = bytes(dsse.algorithm(signer.public_key).signature_bytes_max)
            made = made._with(signer, blank, blank)
        return made

    def _with(self, signer: Signer, manifest: bytes, provenance: bytes) -> Seal:
        key_id = signer.public_key.id.hex()
        return Seal(self.manifest.with_signature(key_id, manifest), self.provenance.with_signature(key_id, provenance))

    def parts(self) -> list[tuple[str, bytes]]:
        """The three members in front."""
        return [
            (bundle.MANIFEST_NAME, self.manifest.payload),
            (bundle.ENVELOPE_NAME, dsse.build(self.manifest)),
            (bundle.PROVENANCE_NAME, dsse.build(self.provenance)),
        ]


def digest(manifest: Manifest) -> str:
    return hashlib.sha256(bundle.build(manifest)).hexdigest()


def is_marked(signer: Signer) -> bool:
    """Is the signer a key file that says of itself that it is for development?"""
    try:
        return DEVELOPMENT_MARK.encode() in Path(signer.name).read_bytes()[:4096]
    except OSError:
        return False


def refuse_development(signer: Signer, product: str) -> None:
    """For a product that is sold. Raises InputWrong."""
    if is_marked(signer) or signer.public_key.id.hex() in trust.development_key_ids():
        raise InputWrong(
            f"{signer.name} is a development key; {product} is a product for sale",
            hint="sign with its own key, best one in a token: --key 'pkcs11:token=...'",
        )
