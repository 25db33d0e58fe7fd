"""One Signer, whatever holds the key: the same signatures, and none that was not verified."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from quarkctl.build import sign
from quarkctl.errors import DeviceMissing, HostUnfit, InputWrong
from quarkctl.formats import mcuboot_image
from quarkctl.formats.signature import Algorithm, PublicKey
from tests import bundles
from tests.conftest import Quarkctl

MESSAGE = b"what is to be signed" * 100
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so")
KINDS = ("ed25519", "ecdsa-p256", "rsa2048", "rsa4096")


def make(kind: str) -> Any:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "ecdsa-p256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


def pem(key: Any) -> bytes:
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with KIND.pem and KIND.pub for each kind of key."""
    folder = tmp_path_factory.mktemp("keys")
    for kind in KINDS:
        key = make(kind)
        (folder / f"{kind}.pem").write_bytes(pem(key))
        (folder / f"{kind}.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return folder


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if "8192" not in a.value])
def test_a_key_file_signs_the_same_each_time(keys: Path, algorithm: Algorithm) -> None:
    path = keys / f"{algorithm.key_kind}.pem"
    signatures = {sign.load(path).sign(MESSAGE, "a", algorithm) for _ in range(3)}
    assert len(signatures) == 1
    key = PublicKey.from_pem((keys / f"{algorithm.key_kind}.pub").read_bytes())
    assert key.verifies(algorithm, MESSAGE, signatures.pop())


@pytest.mark.parametrize(
    ("kind", "hash_name"), [("ecdsa-p256", "sha256"), ("rsa2048", "sha256"), ("rsa4096", "sha512")]
)
def test_openssl_verifies_what_a_key_file_signed(keys: Path, tmp_path: Path, kind: str, hash_name: str) -> None:
    algorithm = Algorithm(f"{kind}-{hash_name}")
    (tmp_path / "sig").write_bytes(sign.load(keys / f"{kind}.pem").sign(MESSAGE, "a", algorithm))
    (tmp_path / "tbs").write_bytes(MESSAGE)
    done = subprocess.run(
        ["openssl", "dgst", f"-{hash_name}", "-verify", keys / f"{kind}.pub", "-signature", tmp_path / "sig",
         tmp_path / "tbs"], capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "Verified OK\n", done.stderr


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256"])
def test_imgtool_verifies_an_image_signed_with_either_kind_of_key(keys: Path, tmp_path: Path, kind: str) -> None:
    signer = sign.load(keys / f"{kind}.pem")
    (tmp_path / "image").write_bytes(
        mcuboot_image.build(
            b"payload" * 99, version=mcuboot_image.Version(1), load_address=0, header_bytes=0x200, board="s1-virtual",
            security_counter=1, public_key=signer.public_key, sign=lambda m: signer.sign(m, "rtos"),
        )
    )  # fmt: skip
    done = subprocess.run(
        [Path(sys.executable).parent / "imgtool", "verify", "-k", keys / f"{kind}.pem", tmp_path / "image"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Image was correctly validated" in done.stdout, done.stdout + done.stderr


def test_the_log_names_key_artifact_and_digests_and_never_the_key(keys: Path) -> None:
    signer = sign.load(keys / "ed25519.pem")
    signer.sign(MESSAGE, "rtos-1.0.0")
    record = signer.log[0].as_dict()
    assert (record["artifact"], record["algorithm"]) == ("rtos-1.0.0", "ed25519")
    assert record["key_id"] == signer.public_key.id.hex()
    private = (keys / "ed25519.pem").read_text().splitlines()[1]
    assert private not in repr(signer) + repr(signer.backend) + json.dumps(record)


def test_key_and_algorithm_must_fit(keys: Path) -> None:
    with pytest.raises(InputWrong, match=r"needs a key of kind rsa4096, .* is rsa2048"):
        sign.load(keys / "rsa2048.pem").sign(MESSAGE, "vbmeta", Algorithm.RSA4096_SHA256)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot read key"), (b"nonsense", "not an unencrypted PEM"), ("p384", "signs nothing here")],
)
def test_a_key_that_is_none_is_named(tmp_path: Path, content: bytes | str | None, told: str) -> None:
    path = tmp_path / "k.pem"
    if content is not None:
        path.write_bytes(pem(ec.generate_private_key(ec.SECP384R1())) if content == "p384" else bytes(content))
    with pytest.raises(InputWrong, match=told):
        sign.load(path).sign(MESSAGE, "a")


# --- tokens


@pytest.fixture(scope="module")
def token(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """``token(kind)`` names a key in a SoftHSM token that holds the same keys as the files."""
    module = next((m for m in MODULES if Path(m).exists()), None)
    assert module, "softhsm2 is not installed: run ./setup.sh test"
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    (folder / "pin").write_text("1234\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(folder / "conf")
    util = ["softhsm2-util", "--module", module]
    subprocess.run(
        [*util, "--init-token", "--free", "--label", "quark test", "--so-pin", "12345678", "--pin", "1234"],
        check=True, capture_output=True,
    )  # fmt: skip
    for number, kind in enumerate(KINDS):
        subprocess.run(
            [*util, "--import", keys / f"{kind}.pem", "--token", "quark test", "--label", f"key {kind}", "--id",
             f"{number + 1:02x}", "--pin", "1234"], check=True, capture_output=True,
        )  # fmt: skip
    yield lambda kind: f"pkcs11:token=quark%20test;object=key%20{kind}?module-path={module}&pin-source={folder}/pin"
    os.environ.pop("SOFTHSM2_CONF")
    if before is not None:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.mark.parametrize(
    "algorithm", [Algorithm.ED25519, Algorithm.RSA2048_SHA256, Algorithm.RSA4096_SHA256, Algorithm.RSA4096_SHA512]
)
def test_a_token_signs_the_bytes_that_a_key_file_signs(
    keys: Path, token: Callable[[str], str], algorithm: Algorithm
) -> None:
    signer = sign.load(token(algorithm.key_kind))
    assert signer.sign(MESSAGE, "a", algorithm) == sign.load(keys / f"{algorithm.key_kind}.pem").sign(
        MESSAGE, "a", algorithm
    )


def test_a_token_signs_an_mcuboot_image_with_ecdsa(keys: Path, token: Callable[[str], str]) -> None:
    signer = sign.load(token("ecdsa-p256"))
    data = mcuboot_image.build(
        b"payload" * 99, version=mcuboot_image.Version(1), load_address=0, header_bytes=0x200, board="s1-virtual",
        security_counter=1, public_key=signer.public_key, sign=lambda m: signer.sign(m, "rtos"),
    )  # fmt: skip
    assert (
        mcuboot_image.verify(mcuboot_image.parse(data), PublicKey.from_pem((keys / "ecdsa-p256.pub").read_bytes()))
        == ""
    )


def test_a_bundle_is_signed_by_a_token_whose_key_was_handed_the_trust(
    token: Callable[[str], str], quarkctl: Quarkctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path / "state"))
    bundles.make(tmp_path)
    key = token("ecdsa-p256")
    shown = quarkctl("keys", "show", key, "--json").json["keys"][0]
    public = tmp_path / "token.pub"
    public.write_text(quarkctl("keys", "show", key, "--pem").out)
    assert shown["key_id"] == PublicKey.from_pem(public.read_bytes()).id.hex()
    made = quarkctl("build", "bundle", "release.toml", "--builds", ".", "--out", "t.qfw", "--key", key)
    assert made.code == 0, made.err
    assert "not trusted for s1-virtual" in quarkctl("bundle", "verify", "t.qfw").err
    rotated = quarkctl("keys", "rotate", "--product", "s1-virtual", "--add", f"{public}=hsm", "--key",
                       bundles.DEVELOPMENT, "--key", key, "-o", "2.json")  # fmt: skip
    assert rotated.code == 0, rotated.err
    assert quarkctl("keys", "trust", "2.json").code == 0
    assert "signed by hsm" in quarkctl("bundle", "verify", "t.qfw").out


def test_what_a_token_refuses_is_said(token: Callable[[str], str], tmp_path: Path) -> None:
    name = token("rsa2048")
    with pytest.raises(DeviceMissing, match="no key nobody"):
        _ = sign.load(name.replace("key%20rsa2048", "nobody")).public_key
    with pytest.raises(DeviceMissing, match="no token other"):
        _ = sign.load(name.replace("quark%20test", "other")).public_key
    (tmp_path / "pin").write_text("9999")
    with pytest.raises(InputWrong, match="refuses the PIN"):
        _ = sign.load(name.partition("&")[0] + f"&pin-source={tmp_path}/pin").public_key
    with pytest.raises(InputWrong, match="process lists"):
        sign.load(name + "&pin-value=1234")
    with pytest.raises(HostUnfit, match=r"token module /nowhere.so fails"):
        _ = sign.load("pkcs11:object=a?module-path=/nowhere.so").public_key


# --- helpers

HELPER = """
import sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.hazmat.primitives.asymmetric import padding, utils
from cryptography.hazmat.primitives import hashes
key = load_pem_private_key(open({key!r}, "rb").read(), None)
def raw(block):  # plain RSA, as a token does it
    n = key.private_numbers()
    return pow(int.from_bytes(block, "big"), n.d, n.public_numbers.n).to_bytes(len(block), "big")
if {mode!r} == "digest":
    assert sys.argv[1:] == ["sha512", "name of key"], sys.argv
    sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read(), padding.PKCS1v15(), utils.Prehashed(hashes.SHA512())))
elif {mode!r} == "files":
    assert sys.argv[1] == "SHA512_RSA2048", sys.argv
    block = open(sys.argv[3], "rb").read()
    open(sys.argv[3], "wb").write(raw(block))
else:
    assert sys.argv[1:] == ["SHA512_RSA2048", "name of key"], sys.argv
    sys.stdout.buffer.write(raw(sys.stdin.buffer.read()))
"""


@pytest.mark.parametrize("mode", ["padded", "files", "digest"])
def test_a_helper_gets_what_avbtool_would_give_it(keys: Path, tmp_path: Path, mode: str) -> None:
    program = tmp_path / "helper"
    program.write_text(f"#!{sys.executable}\n" + HELPER.format(key=str(keys / "rsa2048.pem"), mode=mode))
    program.chmod(0o755)
    signer = sign.load(f"helper:{program}?public={keys / 'rsa2048.pub'}&key=name%20of%20key&mode={mode}")
    expected = sign.load(keys / "rsa2048.pem").sign(MESSAGE, "a", Algorithm.RSA2048_SHA512)
    assert signer.sign(MESSAGE, "a", Algorithm.RSA2048_SHA512) == expected


@pytest.mark.parametrize(
    ("script", "told"),
    [("echo wrong", "is no rsa2048-sha256 signature"), ("echo out of paper >&2; exit 3", "code 3: out of paper")],
)
def test_a_helper_is_not_trusted(keys: Path, tmp_path: Path, script: str, told: str) -> None:
    program = tmp_path / "helper"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(InputWrong, match=told):
        sign.load(f"helper:{program}?public={keys / 'rsa2048.pub'}").sign(MESSAGE, "a")


# --- detached


@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_signature_gives_what_signing_here_gives(keys: Path, tmp_path: Path, kind: str) -> None:
    name = f"detached:{keys / kind}.pub?folder={tmp_path / 'requests'}"
    first = sign.load(name)
    first.sign(MESSAGE, "vbmeta of boot_a")
    with pytest.raises(sign.SignaturesWanted, match="1 signature is wanted from elsewhere: vbmeta of boot_a"):
        first.finish()
    request = json.loads(next((tmp_path / "requests").glob("*.json")).read_text())
    message = (tmp_path / "requests" / request["message_file"]).read_bytes()
    assert message == MESSAGE and request["key_id"] == first.public_key.id.hex()
    here = sign.load(keys / f"{kind}.pem").sign(message, "a", Algorithm(request["algorithm"]))
    (tmp_path / "requests" / request["signature_file"]).write_bytes(here)
    second = sign.load(name)
    assert second.sign(MESSAGE, "vbmeta of boot_a") == here
    second.finish()


def test_a_wrong_detached_signature_is_refused(keys: Path, tmp_path: Path) -> None:
    name = f"detached:{keys / 'rsa2048.pub'}?folder={tmp_path}"
    sign.load(name).sign(MESSAGE, "vbmeta")
    request = json.loads(next(tmp_path.glob("*.json")).read_text())
    (tmp_path / request["signature_file"]).write_bytes(bytes(256))
    with pytest.raises(InputWrong, match=r"vbmeta: what detached:.* is no rsa2048-sha256 signature"):
        sign.load(name).sign(MESSAGE, "vbmeta")


@pytest.mark.parametrize(
    "name",
    [
        "helper:prog",
        "helper:prog?public=a&mode=x",
        "detached:a.pem",
        "pkcs11:token=a?module-path=m",
        "pkcs11:object=a;zeal=1?module-path=m",
    ],
)
def test_a_name_of_a_key_that_makes_no_sense_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(InputWrong) as error:
        sign.load(name)
    assert error.value.hint
