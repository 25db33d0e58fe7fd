"""Verified boot: structures, signatures, hash trees and their codes."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from quarkctl.formats import avb, verity
from quarkctl.formats.record import Damaged
from tests.formats import second_reader
from tests.formats.samples import descriptors, footed, rsa_key, signing

SALT = bytes.fromhex("aabbccddeeff00112233445566778899")


@pytest.mark.parametrize(
    ("bits", "hash_name", "number"),
    [(2048, "sha256", 1), (4096, "sha256", 2), (2048, "sha512", 4), (4096, "sha512", 5)],
)
def test_a_signed_structure_is_trusted_by_us_and_by_openssl(
    bits: int, hash_name: str, number: int, tmp_path: Path
) -> None:
    built = avb.build(
        descriptors(),
        signing(bits, hash_name),
        release="quarkctl",
        rollback_index=7,
        rollback_index_location=1,
        flags=0,
    )
    ours = avb.parse(built + b"padding")
    assert ours.trust() == "" and list(ours.descriptors) == descriptors() and ours.size_bytes == len(built)
    theirs = second_reader.vbmeta(built)
    assert second_reader.openssl_verifies(theirs, tmp_path)
    assert (theirs["algorithm"], theirs["rollback_index"], theirs["location"], theirs["minor"]) == (number, 7, 1, 2)
    assert theirs["release"] == b"quarkctl"
    modulus = rsa_key(bits).public_key().public_numbers().n.to_bytes(bits // 8, "big")
    assert isinstance(theirs["key"], bytes) and theirs["key"][8 : 8 + bits // 8] == modulus


def test_a_second_reader_finds_the_same_descriptors() -> None:
    d = descriptors()
    _, hash_, tree, cmdline, chain = d
    assert isinstance(tree, avb.Hashtree) and isinstance(hash_, avb.Hash) and isinstance(chain, avb.Chain)
    assert isinstance(cmdline, avb.KernelCmdline)
    assert second_reader.vbmeta(avb.build(d, None, release=""))["descriptors"] == [
        ("property", b"com.android.build.boot.os_version", b"13"),
        ("hash", b"boot", hash_.image_size, b"sha256", hash_.salt, hash_.digest),
        ("hashtree", b"system", tree.image_size, tree.tree_offset, tree.tree_size, 4096, 4096, 2, tree.fec_offset,
         tree.fec_size, b"sha256", tree.salt, tree.root_digest),
        ("cmdline", 1, cmdline.text.encode()),
        ("chain", b"vbmeta_system", 2, chain.key_blob),
    ]  # fmt: skip


def test_the_whole_of_an_unsigned_structure_has_its_golden_digest() -> None:
    """The digest was taken from bytes that the second reader and, for the same content, AVB's definition agree on."""
    d = [x for x in descriptors() if not isinstance(x, avb.Chain)]
    built = avb.build(d, None, release="avbtool 1.3.0", rollback_index=5)
    assert (len(built), hashlib.sha256(built).hexdigest()) == (832, GOLDEN_UNSIGNED)


GOLDEN_UNSIGNED = "cc7eb290ead625e25aa97dc2ad67ef74efb82bc062fce9bd7a8a2f491ca2f15a"


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_under_the_signature_is_trusted(at: int, bit: int) -> None:
    raw = bytearray(avb.build(descriptors(), signing(), release="x"))
    at %= len(raw)
    raw[at] ^= 1 << bit
    try:
        parsed = avb.parse(bytes(raw))
    except InputWrong:
        return
    padding = 256 + 32 + 256 <= at < 256 + 320  # behind hash and signature, in the block that nothing signs
    assert parsed.trust() != "" or padding


@pytest.mark.parametrize(
    ("what", "minor"),
    [([], 0), ([replace(descriptors()[1], flags=1)], 1), ([replace(descriptors()[2], flags=2)], 1),
     ([replace(descriptors()[4], flags=1)], 3)],
)  # fmt: skip
def test_what_is_used_raises_the_required_version(what: list[avb.Descriptor], minor: int) -> None:
    assert avb.parse(avb.build(what, None, release="")).required_minor == minor
    assert avb.parse(avb.build([], None, release="", rollback_index_location=3)).required_minor == 2


def test_included_descriptors_are_ordered_and_the_last_of_a_partition_stays() -> None:
    a, b = avb.Hash("boot", 1, b"1" * 32, b""), avb.Hash("boot", 2, b"2" * 32, b"")
    tree = avb.Hashtree("a", 1, 2, 3, b"", b"")
    words = avb.KernelCmdline("x")
    assert avb.ordered([a, tree, words, b]) == [words, b, tree]


def test_a_footer_leads_to_its_structure() -> None:
    found = avb.of_partition(footed())
    assert found and found[0].original_size == 12000 and found[1].trust() == ""
    assert avb.of_partition(b"no footer" * 99) is None


def test_a_footer_that_points_outside_is_refused() -> None:
    raw = footed()[:-64] + avb.build_footer(avb.Footer(5, 2**64 - 4096, 4096))
    with pytest.raises(Damaged, match="vbmeta_offset"):
        avb.of_partition(raw)


def test_a_key_that_does_not_hold_together_is_refused() -> None:
    blob = bytearray(avb.key_blob(signing().key))
    blob[5] ^= 1
    with pytest.raises(InputWrong, match="derived from the modulus"):
        avb.key_of(bytes(blob))


# --- hash trees


def veritysetup(data: bytes, folder: Path, roots: int, salt: bytes = SALT) -> tuple[str, bytes, bytes]:
    (folder / "data").write_bytes(data)
    for name in ("tree", "fec"):
        (folder / name).unlink(missing_ok=True)
    done = subprocess.run(
        ["veritysetup", "format", "--no-superblock", "--hash", "sha256", "--salt", salt.hex(), "data", "tree",
         "--fec-device", "fec", "--fec-roots", str(roots)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    root = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root hash"))
    return root, (folder / "tree").read_bytes(), (folder / "fec").read_bytes()


def pattern(blocks: int) -> bytes:
    """Noise, zeros, repeated words, and blocks that are almost one repeated word."""
    out = []
    for n in range(blocks):
        seed = hashlib.sha512(n.to_bytes(4, "little")).digest()
        almost = bytearray(4096)
        almost[(n * 37) % 4096] = 1
        out.append([seed * 64, bytes(4096), seed[:4] * 1024, bytes(almost)][n % 7 % 4])
    return b"".join(out)


@pytest.mark.parametrize(
    ("blocks", "roots"), [(2, 2), (127, 2), (128, 2), (129, 2), (253, 2), (1500, 2), (17000, 2), (300, 4)]
)
def test_tree_and_codes_are_those_of_veritysetup(blocks: int, roots: int, tmp_path: Path) -> None:
    data = pattern(blocks)
    root, levels, fec = veritysetup(data, tmp_path, roots)
    made = verity.protect(data, SALT, roots)
    assert (made.tree.root.hex(), made.tree.levels) == (root, levels)
    assert made.fec == fec and len(fec) == verity.fec_bytes(len(data) + len(levels), roots)
    assert verity.tree(data, SALT) == made.tree and len(levels) == verity.tree_bytes(len(data))
    in_order = verity.InOrder(len(data), SALT, roots)
    for at in range(0, len(data), 100_001):  # as it comes from a reader that knows nothing of blocks
        in_order(data[at : at + 100_001])
    assert in_order.done() == made


def divided(covered: bytes) -> bytes:
    """The parity of two roots by its definition: the rest of a division by (x - 1)(x - 2)."""
    words = np.zeros((253, verity.fec_rounds(len(covered), 2) * 4096), np.uint8)
    words.reshape(-1)[: len(covered)] = np.frombuffer(covered, np.uint8)
    table = [np.array([_times(x, factor) for x in range(256)], np.uint8) for factor in (3, 2)]
    high = low = np.zeros(words.shape[1], np.uint8)
    for row in words:
        feedback = row ^ high
        high, low = low ^ table[0][feedback], table[1][feedback]
    return np.stack((high, low), axis=1).tobytes()


def _times(a: int, b: int) -> int:
    product = 0
    for bit in range(8):
        product ^= (a << bit) * (b >> bit & 1)
    for bit in range(14, 7, -1):
        product ^= (0x11D << bit - 8) * (product >> bit & 1)
    return product


@settings(max_examples=20)
@given(blocks=st.integers(1, 700), salt=st.binary(max_size=40))
def test_the_fast_codes_are_those_of_polynomial_division(blocks: int, salt: bytes) -> None:
    data = pattern(blocks)
    made = verity.protect(data, salt, 2)
    assert made.fec == divided(data + made.tree.levels)
    assert made.tree == verity.tree(data, salt)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "blake2b-256"])
def test_a_tree_of_any_hash_is_that_of_its_definition(algorithm: str) -> None:
    data = pattern(200)

    def digest(block: bytes) -> bytes:
        return avb.hasher(algorithm, SALT + block).digest()

    slot = {"sha1": 32, "sha256": 32, "sha512": 64, "blake2b-256": 32}[algorithm]
    level, levels = data, []
    while len(level) > 4096:
        level = b"".join(digest(level[at : at + 4096]).ljust(slot, b"\0") for at in range(0, len(level), 4096))
        level = level.ljust(-(-len(level) // 4096) * 4096, b"\0")
        levels.insert(0, level)
    made = verity.tree(data, SALT, algorithm)
    assert made.levels == b"".join(levels) and made.root == digest(level)


def test_one_block_has_no_tree() -> None:
    assert verity.tree(b"x" * 4096, b"") == verity.Tree(hashlib.sha256(b"x" * 4096).digest(), b"")


@pytest.mark.parametrize("size", [0, 1, 4095, 4097])
def test_data_that_is_no_whole_number_of_blocks_is_refused(size: int) -> None:
    with pytest.raises(InputWrong, match="whole blocks of 4096"):
        verity.protect(bytes(size), b"", 2)
