"""Signatures made elsewhere: on another computer, by somebody else, later.

Builds give the same bytes each time, so attaching is building again. The first build leaves two files for each
signature: ``NAME.tbs`` (the bytes to be signed) and ``NAME.json`` (algorithm, key id, digest); it publishes nothing.
Once ``NAME.sig`` lies beside them, the second build takes it, verifies it, and publishes what signing here would give.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote

from quarkctl.build.sign import pem
from quarkctl.errors import InputWrong
from quarkctl.formats.signature import Algorithm, PublicKey

SCHEMA = "quarkctl.signing-request/1"


@dataclass(frozen=True, repr=False)
class Detached:
    """A public key, and the folder through which requests and signatures pass."""

    public: Path
    folder: Path

    @staticmethod
    def parse(rest: str) -> Detached:
        """From what follows ``detached:``. Raises InputWrong."""
        public, _, query = rest.partition("?")
        options = {k: v[0] for k, v in parse_qs(query, keep_blank_values=True).items()}
        if not public or set(options) != {"folder"}:
            raise InputWrong(f"detached:{rest} is not understood", hint="detached:PUBLIC.pem?folder=DIR")
        return Detached(Path(unquote(public)), Path(options["folder"]))

    @cached_property
    def public_key(self) -> PublicKey:
        return pem.public(self.public)

    def sign(self, message: bytes, algorithm: Algorithm, artifact: str) -> bytes | None:
        digest = hashlib.sha256(message).hexdigest()
        stem = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', artifact)}-{digest[:16]}"
        try:
            return (self.folder / f"{stem}.sig").read_bytes()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise InputWrong(f"cannot read {self.folder / stem}.sig: {error.strerror}") from error
        request = {
            "schema": SCHEMA,
            "artifact": artifact,
            "algorithm": algorithm.value,
            "key_id": self.public_key.id.hex(),
            "message_file": f"{stem}.tbs",
            "message_bytes": len(message),
            "message_sha256": digest,
            "message_digest": algorithm.digest(message).hex() if algorithm.hash_name else None,
            "signature_file": f"{stem}.sig",
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{stem}.tbs").write_bytes(message)
            (self.folder / f"{stem}.json").write_text(json.dumps(request, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise InputWrong(f"cannot write the signing request into {self.folder}: {error.strerror}") from error
        return None
