"""Keys that sign images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quarkctl.errors import InputWrong

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Signer(Protocol):
    """Something that signs and never shows its private key."""

    @property
    def public_key(self) -> bytes:
        """Raw Ed25519 public key, 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True, repr=False)
class FileSigner:
    """An Ed25519 key in an unencrypted PKCS#8 PEM file."""

    path: Path

    def __repr__(self) -> str:
        return f"FileSigner({self.path})"

    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(self.path.read_bytes(), password=None)
        except OSError as error:
            raise InputWrong(f"cannot read key {self.path}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise InputWrong(f"{self.path} is not an unencrypted PEM private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InputWrong(
                f"{self.path} is not an Ed25519 key", hint="make one: imgtool keygen -t ed25519 -k key.pem"
            )
        return key

    @property
    def public_key(self) -> bytes:
        return bytes(self._key().public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return bytes(self._key().sign(message))
