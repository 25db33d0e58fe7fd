"""Android Verified Boot 2.0: vbmeta structures, descriptors, footers, and the data that they bind.

Source: AOSP external/avb, ``libavb/avb_vbmeta_image.h``, ``avb_*_descriptor.h`` and the README (AVB 1.3). Big endian.
Offsets in errors count from the start of the vbmeta structure.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quarkctl.errors import InputWrong
from quarkctl.formats.record import Damaged, Record, Source, rounded, text
from quarkctl.formats.signature import Algorithm, PublicKey

HEADER = Record(
    "vbmeta header", ">",
    "magic:4s required_major:I required_minor:I auth_size:Q aux_size:Q algorithm:I hash_offset:Q hash_size:Q "
    "signature_offset:Q signature_size:Q public_key_offset:Q public_key_size:Q key_metadata_offset:Q "
    "key_metadata_size:Q descriptors_offset:Q descriptors_size:Q rollback_index:Q flags:I "
    "rollback_index_location:I release:48s reserved:80x",
)  # fmt: skip
FOOTER = Record(
    "AVB footer", ">", "magic:4s major:I minor:I original_size:Q vbmeta_offset:Q vbmeta_size:Q reserved:28x"
)
_DESCRIPTOR = Record("AVB descriptor", ">", "tag:Q size:Q")
_PROPERTY = Record("AVB property", ">", "tag:Q size:Q key_size:Q value_size:Q")
_HASHTREE = Record(
    "AVB hash tree descriptor", ">",
    "tag:Q size:Q verity_version:I image_size:Q tree_offset:Q tree_size:Q data_block:I hash_block:I fec_roots:I "
    "fec_offset:Q fec_size:Q hash_algorithm:32s name_size:I salt_size:I digest_size:I flags:I reserved:60x",
)  # fmt: skip
_HASH = Record(
    "AVB hash descriptor", ">",
    "tag:Q size:Q image_size:Q hash_algorithm:32s name_size:I salt_size:I digest_size:I flags:I reserved:60x",
)  # fmt: skip
_CMDLINE = Record("AVB kernel command line descriptor", ">", "tag:Q size:Q flags:I text_size:I")
_CHAIN = Record(
    "AVB chain descriptor", ">",
    "tag:Q size:Q rollback_index_location:I name_size:I key_size:I flags:I reserved:60x",
)  # fmt: skip

BLOCK_BYTES = 4096
#: What avbtool keeps free at the end of a partition: room for a vbmeta structure, and the block with the footer.
VBMETA_BYTES_MAX = 64 * 1024
#: A vbmeta structure of this size or more is not read.
_VBMETA_BYTES_LIMIT = 1 << 20
FLAG_HASHTREE_DISABLED = 1
FLAG_VERIFICATION_DISABLED = 2
FLAG_DO_NOT_USE_AB = 1
FLAG_CHECK_AT_MOST_ONCE = 2

ALGORITHMS = {
    1: Algorithm.RSA2048_SHA256, 2: Algorithm.RSA4096_SHA256, 3: Algorithm.RSA8192_SHA256,
    4: Algorithm.RSA2048_SHA512, 5: Algorithm.RSA4096_SHA512, 6: Algorithm.RSA8192_SHA512,
}  # fmt: skip
ALGORITHM_NAMES = {
    0: "NONE", **{n: f"{a.hash_name.upper()}_{a.key_kind.upper()}" for n, a in ALGORITHMS.items()},
}  # fmt: skip
HASHES = {"sha1": "sha1", "sha256": "sha256", "sha512": "sha512", "blake2b-256": "blake2b"}


def hasher(algorithm: str, data: bytes = b"") -> Any:
    """A hash by its name in AVB descriptors. Raises InputWrong for an unknown one."""
    if algorithm not in HASHES:
        raise InputWrong(f"AVB: the hash algorithm {algorithm!r} is not known", hint=", ".join(HASHES))
    if algorithm == "blake2b-256":
        return hashlib.blake2b(data, digest_size=32)
    return hashlib.new(HASHES[algorithm], data, usedforsecurity=False)


# --- descriptors


#: Property of a vbmeta structure: the release that its partitions are.
VERSION_PROPERTY = "quark.version"


@dataclass(frozen=True)
class Property:
    """A name and a value, such as ``com.android.build.system.fingerprint``."""

    TAG: ClassVar = 0
    key: str
    value: bytes

    @property
    def required_minor(self) -> int:
        return 0

    def build(self) -> bytes:
        key = self.key.encode()
        return _descriptor(_PROPERTY, key + b"\0" + self.value + b"\0", key_size=len(key), value_size=len(self.value))


@dataclass(frozen=True)
class Hashtree:
    """A partition that dm-verity reads: sizes and offsets in bytes of the partition's image."""

    TAG: ClassVar = 1
    partition: str
    image_size: int
    tree_offset: int
    tree_size: int
    root_digest: bytes
    salt: bytes
    hash_algorithm: str = "sha256"
    fec_roots: int = 0
    fec_offset: int = 0
    fec_size: int = 0
    flags: int = 0
    data_block_bytes: int = BLOCK_BYTES
    hash_block_bytes: int = BLOCK_BYTES
    verity_version: int = 1

    @property
    def required_minor(self) -> int:
        return 1 if self.flags else 0

    def build(self) -> bytes:
        name = self.partition.encode()
        return _descriptor(
            _HASHTREE, name + self.salt + self.root_digest, verity_version=self.verity_version,
            image_size=self.image_size, tree_offset=self.tree_offset, tree_size=self.tree_size,
            data_block=self.data_block_bytes, hash_block=self.hash_block_bytes, fec_roots=self.fec_roots,
            fec_offset=self.fec_offset, fec_size=self.fec_size, hash_algorithm=self.hash_algorithm.encode(),
            name_size=len(name), salt_size=len(self.salt), digest_size=len(self.root_digest), flags=self.flags,
        )  # fmt: skip


@dataclass(frozen=True)
class Hash:
    """A partition that is hashed whole: H(salt || first ``image_size`` bytes)."""

    TAG: ClassVar = 2
    partition: str
    image_size: int
    digest: bytes
    salt: bytes
    hash_algorithm: str = "sha256"
    flags: int = 0

    @property
    def required_minor(self) -> int:
        return 1 if self.flags & FLAG_DO_NOT_USE_AB or not self.digest else 0

    def build(self) -> bytes:
        name = self.partition.encode()
        return _descriptor(
            _HASH, name + self.salt + self.digest, image_size=self.image_size,
            hash_algorithm=self.hash_algorithm.encode(), name_size=len(name), salt_size=len(self.salt),
            digest_size=len(self.digest), flags=self.flags,
        )  # fmt: skip


@dataclass(frozen=True)
class KernelCmdline:
    """Words for the kernel's command line. flags: 1 only with, 2 only without hash trees."""

    TAG: ClassVar = 3
    text: str
    flags: int = 0

    @property
    def required_minor(self) -> int:
        return 0

    def build(self) -> bytes:
        words = self.text.encode()
        return _descriptor(_CMDLINE, words, flags=self.flags, text_size=len(words))


@dataclass(frozen=True)
class Chain:
    """A partition with its own vbmeta structure, signed with another key (``key_blob``)."""

    TAG: ClassVar = 4
    partition: str
    rollback_index_location: int
    key_blob: bytes
    flags: int = 0

    @property
    def required_minor(self) -> int:
        return 3 if self.flags & FLAG_DO_NOT_USE_AB else 0

    def build(self) -> bytes:
        name = self.partition.encode()
        return _descriptor(
            _CHAIN, name + self.key_blob, rollback_index_location=self.rollback_index_location, name_size=len(name),
            key_size=len(self.key_blob), flags=self.flags,
        )  # fmt: skip


Descriptor = Property | Hashtree | Hash | KernelCmdline | Chain


def _descriptor(record: Record, tail: bytes, **fields: Any) -> bytes:
    tags = {id(_PROPERTY): 0, id(_HASHTREE): 1, id(_HASH): 2, id(_CMDLINE): 3, id(_CHAIN): 4}
    following = rounded(record.size - _DESCRIPTOR.size + len(tail), 8)
    head = record.build(tag=tags[id(record)], size=following, **fields)
    return (head + tail).ljust(_DESCRIPTOR.size + following, b"\0")


def _parse_descriptor(aux: bytes, at: int, base: int) -> tuple[Descriptor | None, int, int]:
    """The descriptor at ``at`` (None for an unknown tag), its tag, and where the next one starts."""
    d = _DESCRIPTOR.parse(aux, at)
    end = at + _DESCRIPTOR.size + d.size
    if d.size % 8 or end > len(aux):
        raise _DESCRIPTOR.wrong(
            "size", base + at, f"is {d.size}: not a multiple of 8 inside {len(aux)} bytes of descriptors"
        )
    record = {0: _PROPERTY, 1: _HASHTREE, 2: _HASH, 3: _CMDLINE, 4: _CHAIN}.get(d.tag)
    if record is None:
        return None, d.tag, end
    if record.size > end - at:
        raise _DESCRIPTOR.wrong(
            "size", base + at, f"is {d.size}, a {record.what} needs {record.size - _DESCRIPTOR.size}"
        )
    h = record.parse(aux, at)
    tail = aux[at + record.size : end]

    def take(*sizes: str, gap: int = 0) -> list[bytes]:
        out, used = [], 0
        for field in sizes:
            size = getattr(h, field)
            if size > len(tail) - used - gap:
                raise record.wrong(field, base + at, f"is {size}, only {max(len(tail) - used, 0)} bytes follow")
            out.append(tail[used : used + size])
            used += size + gap
        return out

    if d.tag == Property.TAG:
        key, value = take("key_size", "value_size", gap=1)
        return Property(_utf8(key, record, base + at, "key"), value), d.tag, end
    if d.tag == Hashtree.TAG:
        name, salt, digest = take("name_size", "salt_size", "digest_size")
        for field in ("data_block", "hash_block"):
            size = getattr(h, field)
            if not 512 <= size <= 1 << 20 or size & (size - 1):
                raise record.wrong(field, base + at, f"is {size}, not a power of two from 512 to 1 MiB")
        return (
            Hashtree(
                _utf8(name, record, base + at, "name_size"), h.image_size, h.tree_offset, h.tree_size, digest, salt,
                text(h.hash_algorithm), h.fec_roots, h.fec_offset, h.fec_size, h.flags, h.data_block, h.hash_block,
                h.verity_version,
            ),
            d.tag,
            end,
        )  # fmt: skip
    if d.tag == Hash.TAG:
        name, salt, digest = take("name_size", "salt_size", "digest_size")
        partition = _utf8(name, record, base + at, "name_size")
        return Hash(partition, h.image_size, digest, salt, text(h.hash_algorithm), h.flags), d.tag, end
    if d.tag == KernelCmdline.TAG:
        (words,) = take("text_size")
        return KernelCmdline(_utf8(words, record, base + at, "text_size"), h.flags), d.tag, end
    name, key = take("name_size", "key_size")
    return Chain(_utf8(name, record, base + at, "name_size"), h.rollback_index_location, key, h.flags), d.tag, end


def _utf8(raw: bytes, record: Record, at: int, _field: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Damaged(record.what, "text", at + record.size, "is not UTF-8") from error


# --- keys


def key_blob(key: PublicKey) -> bytes:
    """An RSA public key as AVB embeds it: bits, -1/n mod 2^32, n, 2^(2*bits) mod n. Raises InputWrong for other keys."""
    if not key.kind.startswith("rsa"):
        raise InputWrong(f"AVB takes RSA keys, not {key.kind}", hint="make one: openssl genrsa -out key.pem 4096")
    n, bits = int(key.native.public_numbers().n), int(key.native.key_size)
    inverse = (1 << 32) - pow(n, -1, 1 << 32)
    size = bits // 8
    return (
        bits.to_bytes(4, "big") + inverse.to_bytes(4, "big") + n.to_bytes(size, "big")
        + pow(2, 2 * bits, n).to_bytes(size, "big")
    )  # fmt: skip


def key_of(blob: bytes) -> PublicKey:
    """The RSA key (exponent 65537) in a blob. Raises InputWrong when the blob does not hold together."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    bits = int.from_bytes(blob[:4], "big")
    if bits not in (2048, 4096, 8192) or len(blob) != 8 + bits // 4:
        raise InputWrong(f"AVB public key: {len(blob)} bytes for a key of {bits} bits")
    try:
        key = PublicKey.of(rsa.RSAPublicNumbers(65537, int.from_bytes(blob[8 : 8 + bits // 8], "big")).public_key())
        if key_blob(key) != blob:
            raise InputWrong("AVB public key: the numbers derived from the modulus are not its own")
    except ValueError as error:
        raise InputWrong(f"AVB public key: the modulus is impossible ({error})") from error
    return key


# --- vbmeta


@dataclass(frozen=True)
class Vbmeta:
    """A parsed vbmeta structure. ``signed``: the bytes under the signature (header and auxiliary block)."""

    algorithm: int
    descriptors: tuple[Descriptor, ...]
    public_key: bytes
    rollback_index: int
    rollback_index_location: int
    flags: int
    release: str
    required_minor: int
    size_bytes: int
    signed: bytes
    hash: bytes
    signature: bytes
    unknown_tags: tuple[int, ...] = ()
    key_metadata: bytes = b""
    #: Where the descriptors stand.
    offsets: tuple[int, ...] = dataclasses.field(default=(), compare=False)

    def trust(self) -> str:
        """Why the signature does not hold, or an empty text when it does. An unsigned structure says so."""
        if self.algorithm == 0:
            return "it is not signed"
        algorithm = ALGORITHMS[self.algorithm]
        if algorithm.digest(self.signed) != self.hash:
            return "its hash does not match its content"
        try:
            key = key_of(self.public_key)
        except InputWrong as error:
            return error.message
        if not key.verifies(algorithm, self.signed, self.signature):
            return "its signature does not verify"
        return ""

    def descriptor(self, partition: str) -> Hash | Hashtree | Chain | None:
        """What binds a partition."""
        for d in self.descriptors:
            if isinstance(d, Hash | Hashtree | Chain) and d.partition == partition:
                return d
        return None


def looks_like(data: Source) -> bool:
    return bytes(data[:4]) == b"AVB0"


def parse(data: Source, at: int = 0) -> Vbmeta:
    """The vbmeta structure at ``at``; what follows it is left alone. Raises Damaged with field and offset."""
    h = HEADER.parse(data, at)
    if h.magic != b"AVB0":
        raise HEADER.wrong("magic", at, f"is {h.magic!r}, not b'AVB0'")
    if h.required_major != 1 or h.required_minor > 3:
        raise HEADER.wrong("required_minor", at, f"is {h.required_major}.{h.required_minor}; 1.0 to 1.3 are known")
    for field in ("auth_size", "aux_size"):
        size = getattr(h, field)
        if size % 64 or size > _VBMETA_BYTES_LIMIT:
            raise HEADER.wrong(field, at, f"is {size}, not a multiple of 64 up to {_VBMETA_BYTES_LIMIT}")
    total = HEADER.size + h.auth_size + h.aux_size
    raw = bytes(data[at : at + total])
    if len(raw) < total:
        raise HEADER.wrong("aux_size", at, f"is {h.aux_size}: the structure has {total} bytes, {len(raw)} are there")
    if h.algorithm not in ALGORITHM_NAMES:
        raise HEADER.wrong("algorithm", at, f"is {h.algorithm}, 0 to 6 are known")
    auth, aux = raw[HEADER.size : HEADER.size + h.auth_size], raw[HEADER.size + h.auth_size :]

    def part(block: bytes, name: str) -> bytes:
        offset, size = int(getattr(h, f"{name}_offset")), int(getattr(h, f"{name}_size"))
        if offset > len(block) or size > len(block) - offset:
            raise HEADER.wrong(f"{name}_size", at, f"is {size} from {offset} on, the block has {len(block)} bytes")
        return block[offset : offset + size]

    descriptors: list[Descriptor] = []
    unknown = []
    area = part(aux, "descriptors")
    base = at + HEADER.size + h.auth_size + h.descriptors_offset
    where = 0
    offsets = []
    while where < len(area):
        offset = base + where
        d, tag, where = _parse_descriptor(area, where, base)
        if d is None:
            unknown.append(tag)
        else:
            descriptors.append(d)
            offsets.append(offset)
    if h.algorithm:
        algorithm = ALGORITHMS[h.algorithm]
        for name, size in (("hash", 32 if algorithm.hash_name == "sha256" else 64),
                           ("signature", algorithm.signature_bytes_max)):  # fmt: skip
            if getattr(h, f"{name}_size") != size:
                raise HEADER.wrong(f"{name}_size", at, f"is {getattr(h, f'{name}_size')}, {algorithm.value} has {size}")
    return Vbmeta(
        h.algorithm, tuple(descriptors), part(aux, "public_key"), h.rollback_index, h.rollback_index_location, h.flags,
        text(h.release), h.required_minor, total, raw[: HEADER.size] + aux, part(auth, "hash"), part(auth, "signature"),
        tuple(unknown), part(aux, "key_metadata"), tuple(offsets),
    )  # fmt: skip


@dataclass(frozen=True)
class Signing:
    """How a vbmeta structure is signed. ``sign`` gets the message and returns the PKCS#1 v1.5 signature."""

    algorithm: Algorithm
    key: PublicKey
    sign: Callable[[bytes], bytes]


def build(
    descriptors: Sequence[Descriptor],
    signing: Signing | None,
    *,
    release: str,
    rollback_index: int = 0,
    rollback_index_location: int = 0,
    flags: int = 0,
    required_minor: int = 0,
) -> bytes:
    """A vbmeta structure, a multiple of 64 bytes. ``required_minor`` is raised to what the content needs.

    ``signing`` None gives algorithm NONE, as for partitions that another vbmeta structure binds.
    """
    area = b"".join(d.build() for d in descriptors)
    blob = key_blob(signing.key) if signing else b""
    aux = area + blob
    aux = aux.ljust(rounded(len(aux), 64), b"\0")
    number = next((n for n, a in ALGORITHMS.items() if signing and a is signing.algorithm), 0)
    hash_bytes = len(signing.algorithm.digest(b"")) if signing else 0
    signature_bytes = signing.algorithm.signature_bytes_max if signing else 0
    auth_bytes = rounded(hash_bytes + signature_bytes, 64)
    if len(release.encode()) > 47:
        raise InputWrong(f"AVB release text {release!r} has more than 47 bytes")
    head = HEADER.build(
        magic=b"AVB0", required_major=1,
        required_minor=max(
            [required_minor, 2 if rollback_index_location else 0, *(d.required_minor for d in descriptors)]
        ),
        auth_size=auth_bytes, aux_size=len(aux), algorithm=number, hash_size=hash_bytes,
        signature_offset=hash_bytes, signature_size=signature_bytes, public_key_offset=len(area),
        public_key_size=len(blob), key_metadata_offset=len(area) + len(blob), descriptors_size=len(area),
        rollback_index=rollback_index, flags=flags, rollback_index_location=rollback_index_location,
        release=release.encode(),
    )  # fmt: skip
    auth = b""
    if signing:
        auth = signing.algorithm.digest(head + aux) + signing.sign(head + aux)
    return head + auth.ljust(auth_bytes, b"\0") + aux


def ordered(descriptors: Iterable[Descriptor]) -> list[Descriptor]:
    """Descriptors as avbtool includes them from images: those of no partition first, then by kind and partition.

    Of two that bind the same partition the last one stays.
    """
    plain: list[Descriptor] = []
    bound: dict[str, Descriptor] = {}
    for d in descriptors:
        if isinstance(d, Hash | Hashtree | Chain):
            bound[f"Avb{type(d).__name__}Descriptor_{d.partition}"] = d
        else:
            plain.append(d)
    return plain + [bound[k] for k in sorted(bound)]


# --- footers


@dataclass(frozen=True)
class Footer:
    """The last 64 bytes of a partition's image. Offsets and sizes in bytes."""

    original_size: int
    vbmeta_offset: int
    vbmeta_size: int


def parse_footer(data: Source) -> Footer | None:
    """The footer of an image, None where there is none. Raises Damaged when it points outside of the image."""
    at = len(data) - FOOTER.size
    if at < 0 or bytes(data[at : at + 4]) != b"AVBf":
        return None
    f = FOOTER.parse(data, at)
    if f.major != 1:
        raise FOOTER.wrong("major", at, f"is {f.major}, only 1 is known")
    if f.vbmeta_size > _VBMETA_BYTES_LIMIT or f.vbmeta_offset + f.vbmeta_size > at:
        raise FOOTER.wrong(
            "vbmeta_offset", at, f"is {f.vbmeta_offset}: {f.vbmeta_size} bytes from there reach the footer"
        )
    if f.original_size > f.vbmeta_offset:
        raise FOOTER.wrong(
            "original_size", at, f"is {f.original_size}, behind the vbmeta structure at {f.vbmeta_offset}"
        )
    return Footer(f.original_size, f.vbmeta_offset, f.vbmeta_size)


def check_inside(d: Hash | Hashtree, at: int, image_bytes: int) -> None:
    """Raises Damaged when a descriptor, which stands at ``at``, binds what its image does not have."""
    if d.image_size > image_bytes:
        record = _HASH if isinstance(d, Hash) else _HASHTREE
        raise record.wrong("image_size", at, f"is {d.image_size}, the image has {image_bytes} bytes")
    if isinstance(d, Hashtree):
        for name in ("tree", "fec"):
            begin, size = int(getattr(d, f"{name}_offset")), int(getattr(d, f"{name}_size"))
            if begin + size > image_bytes:
                field = f"{name}_offset" if begin > image_bytes else f"{name}_size"
                told = f"is {getattr(d, field)}: they end at {begin + size}, the image has {image_bytes} bytes"
                raise _HASHTREE.wrong(field, at, told)


def build_footer(footer: Footer) -> bytes:
    return FOOTER.build(
        magic=b"AVBf", major=1, original_size=footer.original_size, vbmeta_offset=footer.vbmeta_offset,
        vbmeta_size=footer.vbmeta_size,
    )  # fmt: skip


def of_partition(data: Source) -> tuple[Footer, Vbmeta] | None:
    """Footer and vbmeta structure of a partition's image, None where there is no footer. Raises Damaged."""
    footer = parse_footer(data)
    if footer is None:
        return None
    return footer, parse(data, footer.vbmeta_offset)
