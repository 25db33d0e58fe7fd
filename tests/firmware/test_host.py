"""The firmware's C on this computer, with address and undefined-behaviour sanitizers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from quarkctl import schemas
from quarkctl.build import sign
from quarkctl.build.source import development_key
from quarkctl.formats import frame, mcuboot_image, smp
from quarkctl.formats.mcuboot_image import Version
from tests.conftest import RTOS
from tests.firmware.host import HostTool, run


def test_power_and_thermal_policy() -> None:
    assert run("test_core").count("\nok") >= 11


def test_kernel_objects_and_scheduling() -> None:
    assert run("test_kernel").count("\nok") >= 15


def test_a_line_that_nobody_reads_costs_whole_counted_frames() -> None:
    assert run("test_link").count("ok") == 3


def test_every_power_cut_leaves_a_bootable_confirmed_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With sanitizers in large steps, and without them in small ones, which are thousands."""
    signer = sign.load(development_key())
    images = []
    for version, counter in (("1.0.0", 1), ("1.1.0", 1), ("1.2.0", 2)):
        path = tmp_path / f"{version}.bin"
        path.write_bytes(
            mcuboot_image.build(
                bytes((i * 7 + len(images)) % 256 for i in range(4200)), version=Version.parse(version),
                load_address=0x0100_0000, header_bytes=0x40, board="s1-virtual", security_counter=counter,
                public_key=signer.public_key, sign=lambda message: signer.sign(message, "test"),
                ar1_min=Version(1, 2, 0) if counter == 2 else None,
            )
        )  # fmt: skip
        images.append(path)
    key = (RTOS / "keys/development.hex").read_text().strip()
    cuts = 0
    for chunk, fast in (("1024", False), ("64", True)):
        found = re.search(r"(\d+) power cuts survived", run("test_power_cut", key, *images, chunk, fast=fast))
        assert found
        cuts += int(found.group(1))
    assert cuts > 3000
    with capsys.disabled():
        print(f"\n{cuts} power cuts survived")


@pytest.fixture(scope="module")
def tool() -> Iterator[HostTool]:
    running = HostTool()
    yield running
    running.close()


@given(data=st.binary(max_size=600))
def test_hashes_agree_with_a_second_implementation(tool: HostTool, data: bytes) -> None:
    assert tool(HostTool.SHA256, data) == hashlib.sha256(data).digest()
    assert tool(HostTool.SHA512, data) == hashlib.sha512(data).digest()


@pytest.mark.parametrize(
    ("data", "sha256", "sha512"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
         "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
         "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"),
        (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
         "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973ebde0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"),
    ],
    ids=["empty", "abc", "a million a"],
)  # fmt: skip
def test_hashes_match_the_nist_vectors(tool: HostTool, data: bytes, sha256: str, sha512: str) -> None:
    assert tool(HostTool.SHA256, data).hex() == sha256
    assert tool(HostTool.SHA512, data).hex() == sha512


#: RFC 8032 section 7.1, tests 1 to 3: secret key, message.
RFC8032 = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "72",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "af82",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"),
]  # fmt: skip


@pytest.mark.parametrize(("secret", "message", "public", "signature"), RFC8032, ids=["empty", "one byte", "two bytes"])
def test_signatures_match_rfc_8032(tool: HostTool, secret: str, message: str, public: str, signature: str) -> None:
    sig, key, text = bytes.fromhex(signature), bytes.fromhex(public), bytes.fromhex(message)
    assert tool(HostTool.ED25519, sig + key + text) == b"\1"
    for at in range(64):
        assert tool(HostTool.ED25519, sig[:at] + bytes([sig[at] ^ 1]) + sig[at + 1 :] + key + text) == b"\0"


@given(message=st.binary(max_size=100), flip=st.integers(0, 96 * 8 - 1))
def test_a_signature_fails_when_one_bit_of_it_or_of_the_key_changes(tool: HostTool, message: bytes, flip: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(message).digest())
    good = bytearray(key.sign(message) + key.public_key().public_bytes_raw())
    assert tool(HostTool.ED25519, bytes(good) + message) == b"\1"
    good[flip // 8] ^= 1 << (flip % 8)
    assert tool(HostTool.ED25519, bytes(good) + message) == b"\0"


TYPES = st.integers(1, 255).filter(lambda t: t not in (0x09, 0x14))


@given(
    type_=TYPES, source=st.integers(0, 255), seq=st.integers(0, 0xFFFF), time_us=st.integers(0, 2**64 - 1),
    payload=st.binary(max_size=frame.PAYLOAD_MAX),
)  # fmt: skip
def test_frames_of_the_firmware_and_of_python_are_the_same_bytes(
    tool: HostTool, type_: int, source: int, seq: int, time_us: int, payload: bytes
) -> None:
    seed = schemas.telemetry().crc_seed
    ours = frame.build(frame.Frame(type_, source, seq, time_us, payload), seed)
    head = bytes([type_, source]) + seq.to_bytes(2, "little") + time_us.to_bytes(8, "little")
    assert tool(HostTool.FRAME_BUILD, head + payload) == ours
    raw = frame.HEADER.pack(type_, source, seq, time_us) + payload
    assert tool(HostTool.FRAME_PARSE, ours[1:-1]) == raw


@given(run_=st.binary(min_size=1, max_size=300))
def test_the_frame_parser_survives_any_bytes(tool: HostTool, run_: bytes) -> None:
    seed = schemas.telemetry().crc_seed
    got = tool(HostTool.FRAME_PARSE, run_)
    parsed = frame.parse(run_, seed)
    assert bool(got) == (parsed is not None and b"\0" not in run_ and 0xFF not in run_[:1])


@given(message=st.binary(max_size=2000))
def test_console_lines_agree_in_both_directions(tool: HostTool, message: bytes) -> None:
    lines = smp.build_lines(message)
    assert tool(HostTool.LINE_BUILD, message) == lines
    assert tool(HostTool.LINE_FEED, lines) == len(message).to_bytes(2, "little") + message


@given(
    message=st.binary(max_size=400),
    noise=st.binary(max_size=40).filter(lambda b: b"\x06" not in b and b"\x04" not in b),
)
def test_console_lines_survive_noise_between_messages(tool: HostTool, message: bytes, noise: bytes) -> None:
    one = len(message).to_bytes(2, "little") + message
    wire = noise + smp.build_lines(message) + noise + smp.build_lines(message)
    assert tool(HostTool.LINE_FEED, wire) == one + one


@given(bodies=st.lists(st.binary(max_size=300), max_size=3), junk=st.binary(max_size=20))
def test_raw_messages_are_found_one_after_another_and_again_after_silence(
    tool: HostTool, bodies: list[bytes], junk: bytes
) -> None:
    messages = [smp.HEADER.pack(0x0A, 0, len(b), 1, 7, 1) + b for b in bodies]
    framed = b"".join(len(m).to_bytes(2, "little") + m for m in messages)

    def fed(data: bytes, silence_s: int = 0) -> bytes:
        return b"".join(bytes([0 if i else silence_s, b]) for i, b in enumerate(data))

    assert tool(HostTool.RAW_FEED, fed(b"".join(messages))) == framed
    torn = b"\x0a\x00\x10\x00" + junk  # announces 4 KiB, which is too much
    assert tool(HostTool.RAW_FEED, fed(torn) + fed(b"".join(messages), 4)) == framed


@given(data=st.binary(max_size=600))
def test_the_raw_reader_survives_any_bytes(tool: HostTool, data: bytes) -> None:
    tool(HostTool.RAW_FEED, data)


@given(data=st.binary(max_size=600))
def test_the_line_reader_survives_any_bytes(tool: HostTool, data: bytes) -> None:
    tool(HostTool.LINE_FEED, data)
    tool(HostTool.LINE_FEED, b"\x06\x09" + data + b"\n")


values = st.recursive(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=64), st.text(max_size=20), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["off", "len", "data", "sha", "hash", "confirm", "image", "d", "query", "slot", "x"])


@given(
    op=st.sampled_from([0, 2]), group=st.sampled_from([0, 1, 64, 9]), command=st.integers(0, 9),
    body=st.dictionaries(KEYS, values, max_size=6),
)  # fmt: skip
def test_the_smp_server_answers_every_well_formed_request(
    tool: HostTool, op: int, group: int, command: int, body: dict[str, object]
) -> None:
    request = smp.build_message(op, group, command, 7, body)
    answer = tool(HostTool.SMP_HANDLE, request)
    parsed = smp.parse_message(answer)
    assert parsed and (parsed.op, parsed.group, parsed.command, parsed.sequence) == (op + 1, group, command, 7)


@given(data=st.binary(max_size=300), head=st.booleans())
def test_the_smp_server_survives_any_bytes(tool: HostTool, data: bytes, head: bool) -> None:
    if head:
        data = smp.HEADER.pack(0x0A, 0, len(data), 1, 3, 1) + data
    tool(HostTool.SMP_HANDLE, data)


@given(data=st.binary(max_size=400), head=st.booleans())
def test_the_image_parser_survives_any_bytes(tool: HostTool, data: bytes, head: bool) -> None:
    if head:
        data = mcuboot_image.MAGIC.to_bytes(4, "little") + data
    assert tool(HostTool.IMAGE_PARSE, data) != b"\0"
