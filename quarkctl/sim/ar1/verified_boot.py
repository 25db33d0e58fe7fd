"""Android Verified Boot 2.0 as the boot loader checks it: its own reader of vbmeta structures and footers.

Source: AOSP external/avb, README and ``libavb/avb_vbmeta_image.h``, ``avb_*_descriptor.h`` (AVB 1.3). Big endian. Nothing in
here trusts a size or an offset that it read.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from quarkctl.sim.ar1 import hash_tree
from quarkctl.sim.ar1.partitions import Partitions

_HEADER = struct.Struct(">4sII QQ I QQ QQ QQ QQ QQ Q I I 48s 80x")
_DESCRIPTOR = struct.Struct(">QQ")
_PROPERTY = struct.Struct(">QQ")
_HASH = struct.Struct(">Q32sIIII60x")
_CMDLINE = struct.Struct(">II")
_CHAIN = struct.Struct(">IIII60x")
_FOOTER = struct.Struct(">4sIIQQQ28x")
#: libavb reads no more.
VBMETA_MAX = 64 << 10
_MINOR_MAX = 3
_PIECE = 1 << 20
#: {algorithm: (hash, bits of the key)}
_ALGORITHMS = {
    1: ("sha256", 2048), 2: ("sha256", 4096), 3: ("sha256", 8192),
    4: ("sha512", 2048), 5: ("sha512", 4096), 6: ("sha512", 8192),
}  # fmt: skip
_FLAG_NOT_AB = 1
HASHTREE_DISABLED, VERIFICATION_DISABLED = 1, 2
#: What a start needs, and so what must be bound by a hash; those that the device has.
REQUIRED = ("boot", "init_boot", "vendor_boot", "dtbo")


class Unverified(Exception):
    """What was read does not hold, in one line. ``partition``: the one that is bound, only not by what lies there."""

    def __init__(self, text: str, partition: str = "") -> None:
        super().__init__(text)
        self.partition = partition


@dataclass(frozen=True)
class Vbmeta:
    """One structure whose parts lie where its header says."""

    raw: bytes
    key: bytes
    rollback_index: int
    rollback_location: int
    flags: int
    descriptors: tuple[tuple[int, bytes], ...]
    #: What is wrong with the signature; empty where it holds for the key that is carried.
    problem: str = ""

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.raw).digest()

    @property
    def properties(self) -> dict[str, str]:
        out = {}
        for tag, body in self.descriptors:
            if tag == 0 and len(body) >= _PROPERTY.size:
                key_bytes, value_bytes = _PROPERTY.unpack_from(body)
                at = _PROPERTY.size
                if key_bytes + value_bytes + 2 <= len(body) - at:
                    value = body[at + key_bytes + 1 :][:value_bytes]
                    out[body[at : at + key_bytes].decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        return out


def parse(data: bytes, *, verify: bool = True) -> Vbmeta:
    """A structure at the beginning of ``data``. Raises Unverified where there is none."""
    if len(data) < _HEADER.size:
        raise Unverified("it is too short")
    (
        magic, major, minor, auth_bytes, aux_bytes, algorithm, hash_at, hash_bytes, signature_at, signature_bytes,
        key_at, key_bytes, _, _, descriptors_at, descriptors_bytes, rollback_index, flags, location, _,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    if magic != b"AVB0":
        raise Unverified("there is no vbmeta structure")
    if major != 1 or minor > _MINOR_MAX:
        raise Unverified(f"it needs libavb {major}.{minor}, this is 1.{_MINOR_MAX}")
    if auth_bytes % 64 or aux_bytes % 64 or _HEADER.size + auth_bytes + aux_bytes > min(len(data), VBMETA_MAX):
        raise Unverified("its blocks do not fit")
    auth = data[_HEADER.size : _HEADER.size + auth_bytes]
    aux = data[_HEADER.size + auth_bytes :][:aux_bytes]
    key = _part(aux, key_at, key_bytes, "key")
    descriptors = tuple(_descriptors(_part(aux, descriptors_at, descriptors_bytes, "descriptors")))
    raw = data[: _HEADER.size + auth_bytes + aux_bytes]
    problem = ""
    try:
        if verify:
            _check_signature(
                algorithm, data[: _HEADER.size] + aux, key, _part(auth, hash_at, hash_bytes, "hash"),
                _part(auth, signature_at, signature_bytes, "signature"),
            )  # fmt: skip
    except Unverified as error:
        problem = str(error)
    return Vbmeta(raw, key, rollback_index, location, flags, descriptors, problem)


def _part(block: bytes, at: int, size_bytes: int, what: str) -> bytes:
    if at + size_bytes > len(block):
        raise Unverified(f"its {what} lies outside of its block")
    return block[at : at + size_bytes]


def _descriptors(area: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(area):
        if at + _DESCRIPTOR.size > len(area):
            raise Unverified("its descriptors are cut short")
        tag, following = _DESCRIPTOR.unpack_from(area, at)
        at += _DESCRIPTOR.size
        if following % 8 or following > len(area) - at:
            raise Unverified("its descriptors are cut short")
        yield tag, area[at : at + following]
        at += following


def _check_signature(algorithm: int, signed: bytes, key: bytes, digest: bytes, signature: bytes) -> None:
    if algorithm == 0:
        raise Unverified("it is not signed")
    if algorithm not in _ALGORITHMS:
        raise Unverified(f"its algorithm {algorithm} is not known")
    name, bits = _ALGORITHMS[algorithm]
    if hashlib.new(name, signed).digest() != digest:
        raise Unverified("its hash is another")
    if len(key) != 8 + bits // 4 or int.from_bytes(key[:4], "big") != bits or len(signature) != bits // 8:
        raise Unverified("its key or signature has a wrong size")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.hashes import SHA256, SHA512

    modulus = int.from_bytes(key[8 : 8 + bits // 8], "big")
    try:
        public = RSAPublicNumbers(65537, modulus).public_key()
        public.verify(signature, signed, padding.PKCS1v15(), SHA256() if name == "sha256" else SHA512())
    except (InvalidSignature, ValueError):
        raise Unverified("its signature does not hold") from None


# --- a slot


@dataclass
class Verdict:
    """What holds of a slot. ``problems`` is empty where everything does; ``words`` belong on the kernel's command line."""

    vbmeta: Vbmeta | None = None
    problems: list[str] = field(default_factory=list)
    #: What does not hold, and is for the kernel to mend.
    damage: list[str] = field(default_factory=list)
    #: {location: rollback index}
    rollback: dict[int, int] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    mapped: Partitions | None = None
    #: SHA-256 over all structures, as Android tells it, and their size.
    digest: bytes = b""
    size_bytes: int = 0


def load(partitions: Partitions, slot: str, *, verify: bool = True) -> Vbmeta:
    """The top structure of a slot. Raises Unverified."""
    name = f"vbmeta_{slot}"
    size = partitions.size_bytes(name)
    if size is None:
        raise Unverified(f"there is no partition {name}")
    return _parse_of(name, partitions.read(name, 0, min(size, VBMETA_MAX)), verify=verify)


def _parse_of(name: str, data: bytes, *, verify: bool = True) -> Vbmeta:
    try:
        return parse(data, verify=verify)
    except Unverified as error:
        raise Unverified(f"{name}: {error}") from None


def check(
    partitions: Partitions, slot: str, root_key_digest: str, stored: Mapping[int, int], mapped: Partitions | None = None
) -> Verdict:
    """Verify everything that a start of ``slot`` takes. Never raises: what is wrong stands in the verdict.

    ``mapped``: those in which hash trees lie, logical ones too."""
    verdict = Verdict(mapped=mapped or partitions)
    try:
        top = verdict.vbmeta = load(partitions, slot)
    except Unverified as error:
        verdict.problems.append(str(error))
        return verdict
    name = f"vbmeta_{slot}"
    if top.problem:
        verdict.problems.append(f"{name}: {top.problem}")
    elif root_key_digest and hashlib.sha256(top.key).hexdigest() != root_key_digest:
        found = hashlib.sha256(top.key).hexdigest()[:16]
        verdict.problems.append(f"{name}: it is signed by the key {found}, this board trusts {root_key_digest[:16]}")
    if top.flags:
        verdict.problems.append(f"{name}: it switches verification off (flags {top.flags:#x})")
    whole = hashlib.sha256(top.raw)
    verdict.size_bytes = len(top.raw)
    _rollback(verdict, name, top.rollback_location, top.rollback_index, stored)
    bound = _bind(verdict, partitions, slot, top, stored, whole, chained="")
    for required in REQUIRED:
        if required not in bound and partitions.size_bytes(f"{required}_{slot}") is not None:
            verdict.problems.append(f"{required}_{slot}: no descriptor binds it")
    verdict.digest = whole.digest()
    return verdict


def _rollback(verdict: Verdict, name: str, location: int, index: int, stored: Mapping[int, int]) -> None:
    verdict.rollback[location] = max(index, verdict.rollback.get(location, 0))
    if index < stored.get(location, 0):
        verdict.problems.append(
            f"{name}: its rollback index {index} is lower than {stored[location]}, which is stored for location {location}"
        )


def _bind(
    verdict: Verdict, partitions: Partitions, slot: str, vbmeta: Vbmeta, stored: Mapping[int, int],
    whole: hashlib._Hash, *, chained: str,
) -> set[str]:  # fmt: skip
    """Follow the descriptors of one structure. Returns the partitions that they bind."""
    bound: set[str] = set()
    for tag, body in vbmeta.descriptors:
        try:
            if tag == 1 and verdict.mapped and not vbmeta.flags & HASHTREE_DISABLED:
                verdict.damage += filter(None, [hash_tree.check(verdict.mapped, slot, body)])
            elif tag == 2:
                bound.add(_hash(partitions, slot, body))
            elif tag == 3:
                verdict.words += _cmdline(body, vbmeta.flags)
            elif tag == 4:
                bound |= _chain(verdict, partitions, slot, body, stored, whole, chained=chained)
        except hash_tree.TreeWrong as error:
            verdict.problems.append(str(error))
        except Unverified as error:
            verdict.problems.append(str(error))
            bound.add(error.partition)
    return bound


def _hash(partitions: Partitions, slot: str, body: bytes) -> str:
    if len(body) < _HASH.size:
        raise Unverified("a hash descriptor is too short")
    image_bytes, algorithm, name_bytes, salt_bytes, digest_bytes, flags = _HASH.unpack_from(body)
    tail = body[_HASH.size :]
    if name_bytes + salt_bytes + digest_bytes > len(tail):
        raise Unverified("a hash descriptor is too short")
    base = tail[:name_bytes].decode("utf-8", "replace")
    salt, digest = tail[name_bytes:][:salt_bytes], tail[name_bytes + salt_bytes :][:digest_bytes]
    name = base if flags & _FLAG_NOT_AB else f"{base}_{slot}"
    size = partitions.size_bytes(name)
    if size is None:
        raise Unverified(f"{name}: there is no such partition", base)
    if image_bytes > size:
        raise Unverified(f"{name}: its descriptor binds {image_bytes} bytes, it has {size}", base)
    kind = algorithm.rstrip(b"\0")
    if kind not in (b"sha256", b"sha512"):
        raise Unverified(f"{name}: its hash {kind.decode('ascii', 'replace')!r} is not known", base)
    total = hashlib.new(kind.decode(), salt)
    for at in range(0, image_bytes, _PIECE):
        total.update(partitions.read(name, at, min(_PIECE, image_bytes - at)))
    if total.digest() != digest:
        raise Unverified(f"{name}: its hash is not the one in vbmeta", base)
    return base


def _cmdline(body: bytes, vbmeta_flags: int) -> list[str]:
    if len(body) < _CMDLINE.size:
        raise Unverified("a command line descriptor is too short")
    flags, size = _CMDLINE.unpack_from(body)
    text = body[_CMDLINE.size :][:size]
    disabled = bool(vbmeta_flags & HASHTREE_DISABLED)
    if len(text) != size or (flags & 1 and disabled) or (flags & 2 and not disabled) or b"$(" in text:
        return []
    return text.decode("ascii", "replace").split()


def _chain(
    verdict: Verdict, partitions: Partitions, slot: str, body: bytes, stored: Mapping[int, int], whole: hashlib._Hash,
    *, chained: str,
) -> set[str]:  # fmt: skip
    if len(body) < _CHAIN.size:
        raise Unverified("a chain descriptor is too short")
    location, name_bytes, key_bytes, flags = _CHAIN.unpack_from(body)
    tail = body[_CHAIN.size :]
    if name_bytes + key_bytes > len(tail):
        raise Unverified("a chain descriptor is too short")
    base = tail[:name_bytes].decode("utf-8", "replace")
    name = base if flags & _FLAG_NOT_AB else f"{base}_{slot}"
    if chained:
        raise Unverified(f"{chained}: it chains {name}, and is chained itself")
    if not location:
        raise Unverified(f"{name}: it is chained without a rollback index of its own")
    inner = _chained(partitions, base, name)
    whole.update(inner.raw)
    verdict.size_bytes += len(inner.raw)
    if inner.problem:
        raise Unverified(f"{name}: {inner.problem}", base)
    if inner.key != tail[name_bytes:][:key_bytes]:
        raise Unverified(f"{name}: it is signed by another key than vbmeta names", base)
    if inner.flags:
        raise Unverified(f"{name}: only the top structure may have flags", base)
    _rollback(verdict, name, location, inner.rollback_index, stored)
    return _bind(verdict, partitions, slot, inner, stored, whole, chained=name)


def _chained(partitions: Partitions, base: str, name: str) -> Vbmeta:
    """The structure of a chained partition: behind its footer, or, in a partition of its own, at the beginning."""
    size = partitions.size_bytes(name)
    if size is None:
        raise Unverified(f"{name}: there is no such partition", base)
    at, length = 0, min(size, VBMETA_MAX)
    if size >= _FOOTER.size:
        magic, major, _, _, vbmeta_at, vbmeta_bytes = _FOOTER.unpack(
            partitions.read(name, size - _FOOTER.size, _FOOTER.size)
        )
        if magic == b"AVBf":
            if major != 1 or vbmeta_bytes > VBMETA_MAX or vbmeta_at + vbmeta_bytes > size - _FOOTER.size:
                raise Unverified(f"{name}: its footer points elsewhere", base)
            at, length = vbmeta_at, vbmeta_bytes
    try:
        return _parse_of(name, partitions.read(name, at, length))
    except Unverified as error:
        raise Unverified(str(error), base) from None
