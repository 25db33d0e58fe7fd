"""MCUboot images: built, read, and refused."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats import mcuboot_image as m
from quarkctl.formats.mcuboot_image import Version
from quarkctl.formats.signature import PublicKey

KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"test").digest())
PUBLIC = PublicKey.of(KEY.public_key())


def build(
    payload: bytes = b"payload" * 40, version: str = "1.2.3+4", board: str = "s1-virtual", counter: int = 5
) -> bytes:
    return m.build(
        payload, version=Version.parse(version), load_address=0x0100_0000, header_bytes=0x400, board=board,
        security_counter=counter, public_key=PUBLIC, sign=KEY.sign,
    )  # fmt: skip


@given(
    payload=st.binary(max_size=500), counter=st.integers(0, 2**32 - 1), board=st.text("abc-1", min_size=1, max_size=16)
)
def test_what_is_built_is_read_back(payload: bytes, counter: int, board: str) -> None:
    data = build(payload, counter=counter, board=board)
    image = m.parse(data + b"\xff" * 100)
    assert image.hash_ok and image.size_bytes == len(data)
    assert (image.version, image.board, image.security_counter) == (Version(1, 2, 3, 4), board, counter)
    assert data[image.header_bytes :][: image.payload_bytes] == payload
    assert m.verify(image, PUBLIC) == ""


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_is_trusted(at: int, bit: int) -> None:
    data = bytearray(build())
    at %= len(data)
    data[at] ^= 1 << bit
    try:
        image = m.parse(bytes(data))
    except InputWrong:
        return
    assert m.verify(image, PUBLIC) != ""


@given(size=st.integers(0, 10_000))
def test_a_truncated_image_is_named_so(size: int) -> None:
    data = build()
    with pytest.raises(InputWrong):
        m.parse(data[: size % len(data)])


@given(data=st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for candidate in (data, m.MAGIC.to_bytes(4, "little") + data):
        try:
            m.parse(candidate)
        except InputWrong:
            continue


def test_another_key_is_told_apart_from_a_bad_signature() -> None:
    image = m.parse(build())
    other = PublicKey.of(Ed25519PrivateKey.generate().public_key())
    assert m.verify(image, other) == "it is signed with another key"


def test_a_board_name_outside_the_signed_area_does_not_count() -> None:
    data = build(board="s1-virtual")
    fake = m.TLV_INFO.pack(m.TLV_BOARD, 2) + b"g1"
    at = data.rindex(m.TLV_MAGIC.to_bytes(2, "little"))
    size = int.from_bytes(data[at + 2 : at + 4], "little") + len(fake)
    patched = data[: at + 2] + size.to_bytes(2, "little") + data[at + 4 :] + fake
    assert m.parse(patched).board == "s1-virtual"


@pytest.mark.parametrize(
    ("text", "version"), [("1.2.3+4", Version(1, 2, 3, 4)), ("1.2.3.4", Version(1, 2, 3, 4)), ("2", Version(2))]
)
def test_both_spellings_of_a_version_are_read(text: str, version: Version) -> None:
    assert Version.parse(text) == version
    assert Version.parse(str(version)) == version


@pytest.mark.parametrize("text", ["", "1.2.x", "256.0.0", "1.2.3.4.5", "1..2", "-1.0.0", "1.2.65536", "١.0.0"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UsageWrong):
        Version.parse(text)


def test_versions_compare_by_number() -> None:
    assert Version.parse("1.10.0") > Version.parse("1.9.9+7") > Version.parse("1.9.9")


def test_a_p256_key_signs_and_verifies_too() -> None:
    key = ec.derive_private_key(12345, ec.SECP256R1())
    public = PublicKey.of(key.public_key())

    def sign(message: bytes) -> bytes:
        return key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    data = m.build(
        b"payload", version=Version(1), load_address=0, header_bytes=32, board="b", security_counter=0,
        public_key=public, sign=sign,
    )  # fmt: skip
    assert m.verify(m.parse(data), public) == ""
    assert m.verify(m.parse(data), PUBLIC) == "it is signed with another key"
    tampered = bytearray(data)
    tampered[-1] ^= 1
    assert m.verify(m.parse(bytes(tampered)), public) == "its signature does not verify"
