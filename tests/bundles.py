"""Small bundles for tests, made by the real builder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from quarkctl.build import bundle, sign
from quarkctl.build.bundle import Built, Request
from quarkctl.formats import avb, mcuboot_image
from quarkctl.formats.mcuboot_image import Version
from tests.conftest import RTOS

DEVELOPMENT = RTOS / "keys" / "development.pem"


def rtos_image(version: str = "1.1.0", board: str = "s1-virtual", counter: int = 1, size: int = 700) -> bytes:
    """A sound image of a microcontroller that runs nothing."""
    signer = sign.load(DEVELOPMENT)
    return mcuboot_image.build(
        bytes(range(256)) * (size // 256) + bytes(size % 256), version=Version.parse(version), load_address=0x01000000,
        header_bytes=0x20, board=board, security_counter=counter, public_key=signer.public_key,
        sign=lambda message: signer.sign(message, "test"),
    )  # fmt: skip


def vbmeta(version: str = "1.0.1", rollback_index: int = 0, content: bytes = b"") -> bytes:
    """An image that names a slot's content. Nobody signed it."""
    told = [avb.Property(avb.VERSION_PROPERTY, version.encode()), avb.Property("content", content)]
    return avb.build(told, None, release="test", rollback_index=rollback_index).ljust(65536, b"\0")


def make(
    folder: Path,
    version: str = "1.1.0",
    *,
    ar1: Mapping[str, bytes] | None = None,
    ar1_version: str = "1.0.1",
    product: str = "s1-virtual",
    needs: tuple[str, str] = ("", ""),
    keys: tuple[str | Path, ...] = (DEVELOPMENT,),
    name: str = "release.qfw",
    extra: str = "",
    image: bytes = b"",
) -> Built:
    """A bundle in ``folder``. ``needs``: least AR1 version beside the rtos, least rtos version beside the AR1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rtos.bin").write_bytes(image or rtos_image(version, product))
    lines = [f'product = "{product}"', f'version = "r-{version}"', extra, "[rtos]", 'image = "rtos.bin"']
    lines += [f'needs = {{ ar1 = "{needs[0]}" }}'] if needs[0] else []
    if ar1:
        lines += ["[ar1]", f'version = "{ar1_version}"', "rollback_index = 1"]
        lines += [f'needs = {{ rtos = "{needs[1]}" }}'] if needs[1] else []
    for target, data in (ar1 or {}).items():
        (folder / f"{target}.img").write_bytes(data)
        lines += ["[[ar1.image]]", f'target = "{target}"', f'file = "{target}.img"']
    recipe = folder / "release.toml"
    recipe.write_text("\n".join(lines) + "\n")
    return bundle.build(Request(recipe, folder, folder / name, [sign.load(k) for k in keys]))


def key_file(path: Path, kind: str = "ed25519") -> Path:
    """A fresh key that nobody marked."""
    made = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (path.with_name(path.name + ".pub")).write_bytes(
        made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path
