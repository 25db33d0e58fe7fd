"""The one Signer of everything that is signed: MCUboot images, AVB, release bundles.

A key is named by one text, wherever a key can be given:

    PATH                                                      unencrypted PEM private key
    pkcs11:token=T;object=O?module-path=SO&pin-source=FILE    key in a token (RFC 7512)
    helper:PROGRAM?public=PEM&mode=padded|files|digest        program of a signing service
    detached:PEM?folder=DIR                                   signed elsewhere: see ``detached``
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from quarkctl.errors import InputWrong, QuarkError
from quarkctl.formats.signature import Algorithm, PublicKey


class Backend(Protocol):
    """Where a private key lives. It never leaves that place."""

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, message: bytes, algorithm: Algorithm, artifact: str) -> bytes | None:
        """The signature of a message, or None when it was asked for elsewhere and is not here yet."""
        ...


@dataclass(frozen=True)
class Record:
    """One signature in the audit log. Digests in hex."""

    key_id: str
    algorithm: str
    artifact: str
    message_sha256: str
    signature_sha256: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class SignaturesWanted(QuarkError):
    """A detached build waits for signatures that are made elsewhere."""

    exit_code = 6


@dataclass(repr=False)
class Signer:
    """A key that signs, keeps a log, and trusts no backend: every signature is verified before it is used."""

    backend: Backend
    name: str
    log: list[Record] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Signer({self.name})"

    @property
    def public_key(self) -> PublicKey:
        return self.backend.public_key

    def sign(self, message: bytes, artifact: str, algorithm: Algorithm | None = None) -> bytes:
        """Sign a message; the algorithm is that of the key, with SHA-256 where the key leaves a choice.

        While a detached signature is missing the answer is zeros of the right length, and ``finish`` raises.
        Raises InputWrong when key and algorithm do not fit or the signature does not verify.
        """
        key = self.public_key
        if algorithm is None:
            algorithm = default_algorithm(key)
        if key.kind != algorithm.key_kind:
            raise InputWrong(
                f"{artifact}: {algorithm.value} needs a key of kind {algorithm.key_kind}, {self.name} is {key.kind}"
            )
        signature = self.backend.sign(message, algorithm, artifact)
        if signature is None:
            self.wanted.append(artifact)
            return bytes(algorithm.signature_bytes_max)
        if not key.verifies(algorithm, message, signature):
            raise InputWrong(
                f"{artifact}: what {self.name} returned ({len(signature)} bytes) is no {algorithm.value} signature by "
                "its key"
            )
        self.log.append(
            Record(
                key.id.hex(), algorithm.value, artifact, hashlib.sha256(message).hexdigest(),
                hashlib.sha256(signature).hexdigest(),
            )
        )  # fmt: skip
        return signature

    def finish(self) -> None:
        """To be called before anything signed is published. Raises SignaturesWanted when signatures are missing."""
        if self.wanted:
            raise SignaturesWanted(
                f"{len(self.wanted)} signature{'s are' if len(self.wanted) > 1 else ' is'} wanted from elsewhere: "
                f"{', '.join(self.wanted)}",
                hint=f"sign the .tbs files that {self.name} names, put each signature beside it as .sig, build again",
            )


def default_algorithm(key: PublicKey) -> Algorithm:
    """The algorithm of a key, with SHA-256 where there is a choice."""
    return next(a for a in Algorithm if a.key_kind == key.kind)


def load(name: str | Path) -> Signer:
    """The signer that a text names (see the top of this file). Raises InputWrong, HostUnfit."""
    text = str(name)
    scheme, _, rest = text.partition(":")
    if scheme == "pkcs11":
        from quarkctl.build.sign.token import Token

        return Signer(Token.parse(rest), text)
    if scheme == "helper":
        from quarkctl.build.sign.helper import Helper

        return Signer(Helper.parse(rest), text)
    if scheme == "detached":
        from quarkctl.build.sign.detached import Detached

        return Signer(Detached.parse(rest), text)
    from quarkctl.build.sign.pem import Pem

    return Signer(Pem(Path(text)), text)
