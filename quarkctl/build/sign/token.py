"""Keys in PKCS#11 tokens, named by URI (RFC 7512)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_to_bytes

from quarkctl.errors import DeviceAmbiguous, DeviceMissing, HostUnfit, InputWrong, QuarkError
from quarkctl.formats.signature import Algorithm, PublicKey

MODULE_VARIABLE = "QUARKCTL_PKCS11_MODULE"
PIN_VARIABLE = "QUARKCTL_PIN"


@dataclass(frozen=True, repr=False)
class Token:
    """A private key in a token. ``module`` is the shared library of its maker."""

    module: str
    token: str
    label: str
    key_id: bytes
    pin_source: str

    @staticmethod
    def parse(rest: str) -> Token:
        """From what follows ``pkcs11:``. Raises InputWrong."""
        path, _, query = rest.partition("?")
        fields = dict(part.partition("=")[::2] for part in path.split(";") if part)
        options = {k: v[0] for k, v in parse_qs(query, keep_blank_values=True).items()}
        unknown = sorted(
            (set(fields) - {"token", "object", "id", "type"}) | (set(options) - {"module-path", "pin-source"})
        )
        if "pin-value" in unknown:
            raise InputWrong(
                "a PIN in a key's name would stand in logs and process lists",
                hint=f"put it into a file, ?pin-source=FILE, or into {PIN_VARIABLE}",
            )
        if unknown:
            raise InputWrong(
                f"pkcs11: {', '.join(unknown)} is not understood here",
                hint="token, object, id; module-path, pin-source",
            )
        module = options.get("module-path") or os.environ.get(MODULE_VARIABLE, "")
        if not module:
            raise InputWrong("pkcs11: no module-path", hint=f"append ?module-path=FILE.so, or set {MODULE_VARIABLE}")
        if "object" not in fields and "id" not in fields:
            raise InputWrong(
                "pkcs11: neither object nor id names a key", hint="pkcs11:token=T;object=O?module-path=FILE.so"
            )
        return Token(
            module, unquote(fields.get("token", "")), unquote(fields.get("object", "")),
            unquote_to_bytes(fields.get("id", "")), options.get("pin-source", "").removeprefix("file:"),
        )  # fmt: skip

    def _pin(self) -> str | None:
        if not self.pin_source:
            return os.environ.get(PIN_VARIABLE)
        try:
            return Path(self.pin_source).read_text("utf-8").strip()
        except OSError as error:
            raise InputWrong(f"cannot read the PIN file {self.pin_source}: {error.strerror}") from error

    @contextmanager
    def _session(self) -> Iterator[Any]:
        try:
            import pkcs11
            from pkcs11.exceptions import (
                MultipleObjectsReturned,
                MultipleTokensReturned,
                NoSuchKey,
                NoSuchToken,
                PinIncorrect,
                PinLocked,
                PKCS11Error,
            )
        except ImportError as error:
            raise HostUnfit("keys in tokens need python-pkcs11", hint="pip install 'quarkctl[hsm]'") from error
        wanted = f"{self.label or self.key_id.hex()} in token {self.token or '(any)'}"
        try:
            library = pkcs11.lib(self.module)
            token = library.get_token(**({"token_label": self.token} if self.token else {}))
            with token.open(user_pin=self._pin()) as session:
                yield session
        except QuarkError:
            raise
        except NoSuchToken as error:
            raise DeviceMissing(f"no token {self.token or ''} is there", hint=f"module: {self.module}") from error
        except NoSuchKey as error:
            raise DeviceMissing(f"there is no key {wanted}") from error
        except (MultipleTokensReturned, MultipleObjectsReturned) as error:
            raise DeviceAmbiguous(
                f"more than one token or key fits {wanted}", hint="add token=, object= and id="
            ) from error
        except (PinIncorrect, PinLocked) as error:
            raise InputWrong(
                f"the token {self.token} refuses the PIN", hint=f"?pin-source=FILE or {PIN_VARIABLE}"
            ) from error
        except (PKCS11Error, RuntimeError) as error:
            told = str(error) or type(error).__name__
            raise HostUnfit(f"the token module {self.module} fails: {told}") from error

    def _search(self, object_class: Any) -> dict[str, Any]:
        named: dict[str, Any] = {"object_class": object_class}
        if self.label:
            named["label"] = self.label
        if self.key_id:
            named["id"] = self.key_id
        return named

    @cached_property
    def public_key(self) -> PublicKey:
        with self._session() as session:
            import pkcs11
            from cryptography.hazmat.primitives.asymmetric import rsa

            key = session.get_key(**self._search(pkcs11.ObjectClass.PUBLIC_KEY))
            if key.key_type is pkcs11.KeyType.RSA:
                exponent = int.from_bytes(key[pkcs11.Attribute.PUBLIC_EXPONENT], "big")
                modulus = int.from_bytes(key[pkcs11.Attribute.MODULUS], "big")
                return PublicKey.of(rsa.RSAPublicNumbers(exponent, modulus).public_key())
            if key.key_type is pkcs11.KeyType.EC or key.key_type is pkcs11.KeyType.EC_EDWARDS:
                point = bytes(key[pkcs11.Attribute.EC_POINT])
                return PublicKey.from_raw(point[2:] if point[:1] == b"\x04" and len(point) in (34, 67) else point)
            raise InputWrong(f"the token's key {self.label} is of kind {key.key_type.name}")

    def sign(self, message: bytes, algorithm: Algorithm, artifact: str) -> bytes:
        with self._session() as session:
            from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
            from pkcs11 import Mechanism, ObjectClass

            key = session.get_key(**self._search(ObjectClass.PRIVATE_KEY))
            if algorithm is Algorithm.ED25519:
                return bytes(key.sign(message, mechanism=Mechanism.EDDSA))
            if algorithm is Algorithm.ECDSA_P256_SHA256:
                pair = bytes(key.sign(algorithm.digest(message), mechanism=Mechanism.ECDSA))
                return bytes(encode_dss_signature(int.from_bytes(pair[:32], "big"), int.from_bytes(pair[32:], "big")))
            mechanism = Mechanism.SHA512_RSA_PKCS if algorithm.hash_name == "sha512" else Mechanism.SHA256_RSA_PKCS
            return bytes(key.sign(message, mechanism=mechanism))
