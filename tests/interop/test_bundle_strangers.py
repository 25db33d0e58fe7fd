"""Release bundles before tools that are not ours."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from quarkctl.build.bundle import change
from quarkctl.formats import dsse
from quarkctl.formats.signature import PublicKey
from tests import bundles

CONTAINS = '[[contains]]\nname = "monocypher"\nversion = "4.0.3"\nlicense = "BSD-2-Clause OR CC0-1.0"'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both chips and two signatures, and its members in a folder beside it."""
    folder = tmp_path_factory.mktemp("strangers")
    keys = (bundles.DEVELOPMENT, bundles.key_file(folder / "ec.pem", "ecdsa-p256"))
    path = bundles.make(folder, ar1={"boot": b"b" * 3000}, keys=keys, extra=CONTAINS).path
    with change.opened(path) as one:
        change.extract(one, folder / "x")
    return folder


def test_unzip_finds_no_errors(made: Path) -> None:
    done = subprocess.run(["unzip", "-t", made / "release.qfw"], capture_output=True, text=True)
    assert done.returncode == 0 and "No errors detected" in done.stdout
    listed = subprocess.run(["zipinfo", "-v", made / "release.qfw"], capture_output=True, text=True)
    assert listed.returncode == 0 and "warning" not in (listed.stdout + listed.stderr).lower()
    out = made / "unzipped"
    subprocess.run(["unzip", "-q", made / "release.qfw", "-d", out], check=True)
    for path in (made / "x").rglob("*.*"):
        if path.is_file():
            assert (out / path.relative_to(made / "x")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["manifest.dsse.json", "provenance.dsse.json"])
def test_securesystemslib_verifies_the_envelopes(made: Path, name: str) -> None:
    publics = [PublicKey.from_pem(p.read_bytes()) for p in (bundles.DEVELOPMENT, made / "ec.pem")]
    keys = [SSlibKey.from_crypto(p.native, keyid=p.id.hex()) for p in publics]
    raw = json.loads((made / "x/quarkctl" / name).read_text())
    envelope = Envelope.from_dict(json.loads(json.dumps(raw)))
    assert len(envelope.verify(keys, 2)) == 2
    raw["payload"] = base64.b64encode(base64.b64decode(raw["payload"]) + b" ").decode()
    with pytest.raises(VerificationError):
        Envelope.from_dict(raw).verify(keys, 2)


def test_the_provenance_is_an_in_toto_statement_of_slsa(made: Path) -> None:
    envelope = dsse.parse((made / "x/quarkctl/provenance.dsse.json").read_bytes(), "it")
    statement = json.loads(envelope.payload)
    assert envelope.payload_type == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    for subject in statement["subject"]:
        done = subprocess.run(["sha256sum", made / "x" / subject["name"]], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] == subject["digest"]["sha256"]
    parsed = ParseDict(statement, StatementMessage())  # raises for a field that in-toto does not know
    Statement.copy_from_pb(parsed).validate()
    provenance = ParseDict(statement["predicate"], Provenance())  # and here for one that SLSA does not
    assert provenance.build_definition.build_type and provenance.run_details.builder.id


def test_cyclonedx_takes_the_sbom(made: Path) -> None:
    text = (made / "x/quarkctl/sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = Bom.from_json(json.loads(text))
    assert {c.name for c in bom.components} >= {"monocypher", "s1-virtual ar1 boot", "s1-virtual rtos slot"}
    boot = next(c for c in bom.components if c.name == "s1-virtual ar1 boot")
    expected = subprocess.run(["sha256sum", made / "x/ar1/boot.img"], capture_output=True, text=True, check=True)
    assert next(iter(boot.hashes)).content == expected.stdout.split()[0]


def test_openssl_verifies_the_signatures_over_the_extracted_bytes(made: Path) -> None:
    manifest = (made / "x/quarkctl/manifest.json").read_bytes()
    raw = json.loads((made / "x/quarkctl/manifest.dsse.json").read_text())
    kind = raw["payloadType"].encode()
    message = made / "message"
    message.write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(manifest), manifest))
    for key in (bundles.DEVELOPMENT, made / "ec.pem"):
        key_id = PublicKey.from_pem(key.read_bytes()).id.hex()
        signature = made / "signature"
        signature.write_bytes(base64.b64decode(next(s["sig"] for s in raw["signatures"] if s["keyid"] == key_id)))
        public = made / "public.pem"
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
        command = [
            "openssl",
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            public,
            "-rawin",
            "-in",
            message,
            "-sigfile",
            signature,
        ]
        if key.name == "ec.pem":
            command = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, message]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
