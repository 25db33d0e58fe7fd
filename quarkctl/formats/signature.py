"""Public keys and the signatures that our formats carry: Ed25519, ECDSA on P-256, RSA with PKCS#1 v1.5.

A public key is its SubjectPublicKeyInfo (RFC 5280, DER); its id is the SHA-256 of that, as MCUboot's key hash and the
release bundle have it. ECDSA signatures are DER (RFC 3279): their length varies, up to 72 bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from quarkctl.errors import InputWrong


class Algorithm(Enum):
    """How a message is signed. The values stand in requests, records and logs."""

    ED25519 = "ed25519"
    ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
    RSA2048_SHA256 = "rsa2048-sha256"
    RSA4096_SHA256 = "rsa4096-sha256"
    RSA8192_SHA256 = "rsa8192-sha256"
    RSA2048_SHA512 = "rsa2048-sha512"
    RSA4096_SHA512 = "rsa4096-sha512"
    RSA8192_SHA512 = "rsa8192-sha512"

    @property
    def key_kind(self) -> str:
        """What key it takes: ``ed25519``, ``ecdsa-p256``, ``rsa4096``..."""
        return self.value.removesuffix("-sha256").removesuffix("-sha512")

    @property
    def hash_name(self) -> str:
        """``sha256`` or ``sha512``; empty for Ed25519, which hashes by itself."""
        return self.value.rpartition("-")[2] if "sha" in self.value else ""

    @property
    def signature_bytes_max(self) -> int:
        if self.key_kind.startswith("rsa"):
            return int(self.key_kind.removeprefix("rsa")) // 8
        return 64 if self is Algorithm.ED25519 else 72

    def digest(self, message: bytes) -> bytes:
        """Hash of a message as this algorithm takes it. Raises KeyError for Ed25519."""
        return {"sha256": hashlib.sha256, "sha512": hashlib.sha512}[self.hash_name](message).digest()


#: DigestInfo of PKCS#1 v1.5 up to the digest (RFC 8017, section 9.2, note 1).
DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410; 32 bytes of key follow
_P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # RFC 5480; an uncompressed point
RSA_BITS = (2048, 4096, 8192)


def padded(algorithm: Algorithm, message: bytes) -> bytes:
    """The PKCS#1 v1.5 block of a message (RFC 8017, 9.2), as long as the modulus: what raw RSA signs."""
    tail = b"\0" + DIGEST_INFO[algorithm.hash_name] + algorithm.digest(message)
    return b"\0\1" + b"\xff" * (algorithm.signature_bytes_max - 2 - len(tail)) + tail


@dataclass(frozen=True)
class PublicKey:
    """A public key by its SubjectPublicKeyInfo."""

    spki: bytes

    @staticmethod
    def of(key: Any) -> PublicKey:
        """From a public key of ``cryptography``. Raises InputWrong for a kind that nothing here signs with."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = PublicKey(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        _ = public.kind
        return public

    @staticmethod
    def from_pem(data: bytes) -> PublicKey:
        """From a PEM public key, or the public half of a private one. Raises InputWrong."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

        try:
            if b"PRIVATE KEY" in data:
                return PublicKey.of(load_pem_private_key(data, password=None).public_key())
            return PublicKey.of(load_pem_public_key(data))
        except (ValueError, TypeError) as error:
            raise InputWrong("not a PEM public key or unencrypted private key") from error

    @staticmethod
    def from_raw(raw: bytes) -> PublicKey:
        """From 32 bytes of Ed25519, or an uncompressed P-256 point with (65) or without (64) its leading 04."""
        if len(raw) == 32:
            return PublicKey(_ED25519_SPKI + raw)
        if len(raw) in (64, 65):
            return PublicKey(_P256_SPKI + (raw if len(raw) == 65 else b"\x04" + raw))
        raise InputWrong(f"a raw public key has 32 (Ed25519) or 64 (P-256) bytes, not {len(raw)}")

    @property
    def raw(self) -> bytes:
        """32 bytes of an Ed25519 key, 65 of an uncompressed P-256 point. Raises InputWrong for RSA."""
        for prefix in (_ED25519_SPKI, _P256_SPKI):
            if self.spki.startswith(prefix):
                return self.spki[len(prefix) :]
        raise InputWrong(f"a key of kind {self.kind} has no raw form")

    @property
    def pem(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        data: bytes = self.native.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return data.decode()

    @property
    def id(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo, 32 bytes."""
        return hashlib.sha256(self.spki).digest()

    @cached_property
    def kind(self) -> str:
        """``ed25519``, ``ecdsa-p256``, ``rsa2048``, ``rsa4096``, ``rsa8192``. Raises InputWrong for any other."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        key = self.native
        if isinstance(key, ed25519.Ed25519PublicKey):
            return "ed25519"
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
            return "ecdsa-p256"
        if isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS:
            if key.public_numbers().e != 65537:
                raise InputWrong(f"the RSA key has the exponent {key.public_numbers().e}, not 65537")
            return f"rsa{key.key_size}"
        name = type(key).__name__.removesuffix("PublicKey").strip("_")
        raise InputWrong(
            f"a key of kind {name} {getattr(key, 'key_size', '')} signs nothing here".replace("  ", " "),
            hint="Ed25519, ECDSA P-256, RSA 2048, 4096 and 8192 do",
        )

    @cached_property
    def native(self) -> Any:
        """The key as ``cryptography`` has it."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        try:
            return load_der_public_key(self.spki)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputWrong("the public key is damaged") from error

    def verifies(self, algorithm: Algorithm, message: bytes, signature: bytes, *, prehashed: bool = False) -> bool:
        """Whether a signature holds. ``prehashed``: the message is the digest already (not for Ed25519)."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

        if self.kind != algorithm.key_kind:
            return False
        try:
            if algorithm is Algorithm.ED25519:
                self.native.verify(signature, message)
                return True
            plain = hashes.SHA512() if algorithm.hash_name == "sha512" else hashes.SHA256()
            how = utils.Prehashed(plain) if prehashed else plain
            if algorithm is Algorithm.ECDSA_P256_SHA256:
                self.native.verify(signature, message, ec.ECDSA(how))
            else:
                self.native.verify(signature, message, padding.PKCS1v15(), how)
        except (InvalidSignature, ValueError):
            return False
        return True
