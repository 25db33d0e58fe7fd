"""Keys in PEM files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats.signature import Algorithm, PublicKey


def read(path: Path) -> bytes:
    """A key file. Raises InputWrong when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputWrong(f"cannot read key {path}: {error.strerror}") from error


def public(path: Path) -> PublicKey:
    """The public key in a PEM file. Raises InputWrong."""
    try:
        return PublicKey.from_pem(read(path))
    except InputWrong as error:
        raise InputWrong(error.message if str(path) in error.message else f"{path}: {error.message}") from error


@dataclass(frozen=True, repr=False)
class Pem:
    """An unencrypted private key in a PEM file."""

    path: Path

    @cached_property
    def _key(self) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            return load_pem_private_key(read(self.path), password=None)
        except (ValueError, TypeError) as error:
            raise InputWrong(
                f"{self.path} is not an unencrypted PEM private key",
                hint="make one: openssl genpkey -algorithm ed25519 -out key.pem",
            ) from error

    @cached_property
    def public_key(self) -> PublicKey:
        return PublicKey.of(self._key.public_key())

    def sign(self, message: bytes, algorithm: Algorithm, artifact: str) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding

        if algorithm is Algorithm.ED25519:
            return bytes(self._key.sign(message))
        if algorithm is Algorithm.ECDSA_P256_SHA256:  # RFC 6979: the same message gives the same signature
            return bytes(self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        how = hashes.SHA512() if algorithm.hash_name == "sha512" else hashes.SHA256()
        return bytes(self._key.sign(message, padding.PKCS1v15(), how))
