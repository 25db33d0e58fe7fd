"""Programs that sign for us, such as the client of a signing service.

Modes ``padded`` and ``files`` are those of avbtool (``--signing_helper``, ``--signing_helper_with_files``; Android AVB 1.3):
the program is started with the names of algorithm and key; it gets the whole PKCS#1 v1.5 block, not the data and not the
digest, and gives back the raw RSA signature. Mode ``digest`` is for services that sign digests only: the program is
started with the names of hash and key, gets the digest, and gives back the signature (for Ed25519: the message).
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote

from quarkctl.build.sign import pem
from quarkctl.errors import HostUnfit, InputWrong
from quarkctl.formats.signature import Algorithm, PublicKey, padded

MODES = ("padded", "files", "digest")
#: People may have to touch a token or confirm on a phone.
TIMEOUT_S = 300.0


@dataclass(frozen=True, repr=False)
class Helper:
    """A program that signs. ``key`` is passed on to it; the public key is read from a file of ours."""

    program: str
    public: Path
    mode: str
    key: str

    @staticmethod
    def parse(rest: str) -> Helper:
        """From what follows ``helper:``. Raises InputWrong."""
        program, _, query = rest.partition("?")
        options = {k: v[0] for k, v in parse_qs(query, keep_blank_values=True).items()}
        unknown = sorted(set(options) - {"public", "mode", "key"})
        mode = options.get("mode", "padded")
        if unknown or mode not in MODES or not options.get("public") or not program:
            wrong = f"{', '.join(unknown)} is not understood" if unknown else "program, public key or mode is missing"
            raise InputWrong(f"helper: {wrong}", hint="helper:PROGRAM?public=PEM[&key=NAME][&mode=padded|files|digest]")
        return Helper(unquote(program), Path(options["public"]), mode, options.get("key", options["public"]))

    @cached_property
    def public_key(self) -> PublicKey:
        return pem.public(self.public)

    def sign(self, message: bytes, algorithm: Algorithm, artifact: str) -> bytes:
        if self.mode == "digest":
            given = algorithm.digest(message) if algorithm.hash_name else message
            return self._run([algorithm.hash_name or algorithm.value, self.key], given)
        if not algorithm.key_kind.startswith("rsa"):
            raise InputWrong(
                f"{artifact}: mode {self.mode} of a helper is for RSA, not {algorithm.value}", hint="mode=digest"
            )
        block = padded(algorithm, message)
        name = f"{algorithm.hash_name.upper()}_{algorithm.key_kind.upper()}"
        if self.mode == "padded":
            return self._run([name, self.key], block)
        with tempfile.TemporaryDirectory(prefix="quarkctl-sign-") as folder:
            file = Path(folder) / "block"
            file.write_bytes(block)
            self._run([name, self.key, str(file)], b"")
            return file.read_bytes()

    def _run(self, arguments: list[str], given: bytes) -> bytes:
        try:
            done = subprocess.run(
                [self.program, *arguments], input=given, capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except OSError as error:
            raise HostUnfit(f"cannot start the signing helper {self.program}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise HostUnfit(f"the signing helper {self.program} gave nothing within {TIMEOUT_S:.0f} s") from error
        if done.returncode:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise InputWrong(
                f"the signing helper {self.program} failed with code {done.returncode}: {told[-1] if told else 'no output'}"
            )
        return done.stdout
