"""Bundles that are damaged, cut off, mixed or made by an enemy: refused, by a text, before anything is given out."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarkctl import schemas
from quarkctl.boards import trust
from quarkctl.errors import InputWrong
from quarkctl.formats import archive, bundle
from quarkctl.formats.archive import Entry
from quarkctl.formats.bundle import Manifest
from quarkctl.formats.bundle_reader import Reader
from quarkctl.formats.mcuboot_image import Version
from tests import bundles

Members = dict[str, bytes]


_opened: dict[bytes, Manifest] = {}


def read(data: bytes, step: int = 1 << 30) -> Members:
    """All that the reader gives out, as `flash` and `verify` read. ``step``: as a pipe gives bytes."""
    stream = io.BytesIO(data)
    reader = Reader(lambda size: stream.read(min(size, step)))
    head = reader.head()
    front = data[: reader.done_bytes]
    if front not in _opened:  # nearly all of the time; thousands of the bundles here differ behind it only
        _opened[front], _, _ = trust.open_bundle(head)
    manifest = _opened[front]
    reader.begin(manifest)
    out = {m.name: b"".join(reader.chunks(m)) for m in manifest.members}
    reader.finish()
    return out


def read_as_a_stranger(data: bytes) -> Members:
    """The same with Python's zipfile and hashlib: nothing of ours. Raises for what is damaged."""
    archive_ = zipfile.ZipFile(io.BytesIO(data))
    infos = archive_.infolist()
    assert len({i.filename for i in infos}) == len(infos)
    content = {i.filename: archive_.read(i) for i in infos}
    manifest = json.loads(content["quarkctl/manifest.json"])
    heads = {"quarkctl/manifest.json", "quarkctl/manifest.dsse.json", "quarkctl/provenance.dsse.json"}
    assert {m["name"] for m in manifest["members"]} == set(content) - heads
    out = {m["name"]: content[m["name"]] for m in manifest["members"]}
    assert all(hashlib.sha256(out[m["name"]]).hexdigest() == m["sha256"] for m in manifest["members"])
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return bundles.make(tmp_path_factory.mktemp("small")).path.read_bytes()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("both")
    return bundles.make(folder, ar1={"boot": b"b" * 3000, "system": b"s" * 2_500_000}).path.read_bytes()


def test_two_readers_agree_and_the_size_of_the_reads_does_not_matter(both: bytes) -> None:
    members = read(both)
    assert members == read_as_a_stranger(both) == read(both, step=1000)
    assert len(members["ar1/system.img"]) == 2_500_000


def test_every_byte_flipped_is_refused(small: bytes) -> None:
    data = bytearray(small)
    for at in range(len(data)):
        data[at] ^= 1 << at % 8
        with pytest.raises(InputWrong):
            read(bytes(data))
        data[at] ^= 1 << at % 8


def test_every_truncation_is_refused(small: bytes) -> None:
    for size in range(len(small)):
        with pytest.raises(InputWrong):
            read(small[:size])


@settings(max_examples=200)
@given(st.data())
def test_whatever_is_spliced_is_refused_or_the_same(small: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(small)))
    end = data.draw(st.integers(start, len(small)))
    other = data.draw(st.one_of(st.binary(max_size=64), st.just(small[end:start]), st.just(small[start:end] * 2)))
    changed = small[:start] + other + small[end:]
    try:
        assert read(changed) == read(small) and changed == small
    except InputWrong:
        assert changed != small


@given(st.binary(max_size=300))
def test_garbage_is_no_bundle(data: bytes) -> None:
    with pytest.raises(InputWrong):
        read(data)


def rebuilt(members: Members) -> bytes:
    """A ZIP of ours, in all respects but its content."""
    import zlib

    out, entries = b"", []
    for name, data in members.items():
        entries.append(Entry(name, len(data), zlib.crc32(data)))
        out += archive.local_header(entries[-1]) + data
    return out + archive.directory(entries)


def raw_members(data: bytes) -> Members:
    archive_ = zipfile.ZipFile(io.BytesIO(data))
    return {i.filename: archive_.read(i) for i in archive_.infolist()}


def test_members_swapped_between_two_signed_bundles_are_refused(tmp_path: Path) -> None:
    one = raw_members(bundles.make(tmp_path / "a", "1.1.0", ar1={"boot": b"a" * 900}).path.read_bytes())
    other = raw_members(bundles.make(tmp_path / "b", "1.2.0", ar1={"boot": b"b" * 900}).path.read_bytes())
    assert rebuilt(one) != rebuilt(other) and read(rebuilt(one)) and read(rebuilt(other))
    differ = [name for name in one if one[name] != other[name]]  # the message sets are the same in both
    assert len(differ) == len(one) - len(schemas.members())
    for name in differ:
        with pytest.raises(InputWrong):
            read(rebuilt({**one, name: other[name]}))


ATTACKS: dict[str, Callable[[Members], Members]] = {
    "unlisted": lambda m: {**m, "extra": b"x"},
    "missing": lambda m: {k: v for k, v in m.items() if not k.startswith("rtos")},
    "order": lambda m: dict(reversed(m.items())),
    "payload first": lambda m: {"rtos/rtos.bin": m["rtos/rtos.bin"], **m},
    "no signature": lambda m: {k: v for k, v in m.items() if k != bundle.ENVELOPE_NAME},
    "nothing": lambda m: {},
    "another manifest in front": lambda m: {
        k: v.replace(b"r-1.1.0", b"r-9.1.0") if k == bundle.MANIFEST_NAME else v for k, v in m.items()
    },
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_another_set_of_members_is_refused(small: bytes, attack: str) -> None:
    with pytest.raises(InputWrong):
        read(rebuilt(ATTACKS[attack](raw_members(small))))


LENGTHS = (0, 1, 16 << 20, (16 << 20) + 1, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, 1 << 63, (1 << 64) - 1)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("size", LENGTHS)
def test_a_length_that_is_a_lie_is_refused_and_costs_no_memory(small: bytes, place: int, size: int) -> None:
    """Of a member in front, whose length stands nowhere else; the rest of the file is without end."""
    import itertools
    import zlib

    members = list(raw_members(small).items())
    start = b"".join(
        archive.local_header(Entry(name, len(data), zlib.crc32(data))) + data for name, data in members[:place]
    )
    name, data = members[place]
    header = archive.local_header(Entry(name, size, zlib.crc32(data)))
    swapped = bytearray(header)
    if len(header) > 30 + len(name):  # ZIP64: two lengths, of which one may be another
        swapped[-16:-8] = len(data).to_bytes(8, "little")
    for head in {bytes(header), bytes(swapped)}:
        stream, asked = io.BytesIO(start + head + data), itertools.count()
        largest = 0

        def give(wanted: int, stream: io.BytesIO = stream, asked: itertools.count[int] = asked) -> bytes:
            nonlocal largest
            largest = max(largest, wanted)
            assert next(asked) < 100_000, "it reads for ever"
            return stream.read(wanted) or bytes(min(wanted, 4096))

        with pytest.raises(InputWrong):
            Reader(give).head()
        assert largest <= 2 * bundle.MANIFEST_BYTES_MAX


def zipped(members: Members, **options: object) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive_:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            for key, value in options.items():
                setattr(info, key, value)
            archive_.writestr(info, data)
    return out.getvalue()


def test_other_ways_to_write_the_same_zip_are_refused(small: bytes) -> None:
    members = raw_members(small)
    cases = {
        "deflate": zipped(members, compress_type=zipfile.ZIP_DEFLATED),
        "comment": zipped(members, comment=b"hello"),
        "extra": zipped(members, extra=b"\xfe\xca\x00\x00"),
        "date": zipped(members, date_time=(2026, 1, 1, 0, 0, 0)),
        "symbolic link": zipped(members, external_attr=0o120777 << 16),
        "prefix": b"#!/bin/sh\n" + small,
        "suffix": small + b"\0",
        "twice": small + small,
        "comment at the end": small[:-2] + b"\1\0x",
    }
    for name, data in cases.items():
        assert zipfile.ZipFile(io.BytesIO(data)).namelist(), name  # others read it
        with pytest.raises(InputWrong):
            read(data)


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../b", "a//b", "a\\b", "C:x", "", ".", "a/.", "a\0b", "ä", "x" * 300, "a/", "con. "],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InputWrong):
        archive.check_names([name])


def test_names_that_are_one_file_on_some_systems_are_refused() -> None:
    for names in (["a", "a"], ["a", "A"], ["a", "a/b"]):
        with pytest.raises(InputWrong):
            archive.check_names(names)


def test_a_member_beyond_4_gib_is_zip64_for_others_too(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    entries = [Entry("large", 5 << 30, 0), Entry("small", 3, 0x352441C2)]
    with path.open("wb") as file:  # a hole: nothing is written
        file.write(archive.local_header(entries[0]))
        file.seek(5 << 30, io.SEEK_CUR)
        file.write(archive.local_header(entries[1]) + b"abc" + archive.directory(entries))
    with zipfile.ZipFile(path) as archive_:
        assert [(i.filename, i.file_size) for i in archive_.infolist()] == [("large", 5 << 30), ("small", 3)]
        assert archive_.read("small") == b"abc"
    fixed = archive.local_header(entries[0])[:30]
    rest = archive.local_header(entries[0])[30:]
    assert archive.parse_local_header(fixed, rest) == entries[0] and archive.rest_bytes(fixed) == len(rest)
    assert archive.local_header_bytes("large", 5 << 30) == 30 + len(rest)


def test_a_manifest_is_read_back(both: bytes) -> None:
    manifest = json.loads(raw_members(both)[bundle.MANIFEST_NAME])
    parsed = bundle.parse(raw_members(both)[bundle.MANIFEST_NAME])
    assert bundle.build(parsed) == raw_members(both)[bundle.MANIFEST_NAME]
    assert [c.target for c in parsed.components] == ["slot", "boot", "system"]
    assert manifest["schema"] == "quarkctl.bundle/1"


def change(raw: dict[str, object], path: str, value: object) -> bytes:
    target: object = raw
    *parents, last = path.split(".")
    for p in parents:
        target = target[int(p)] if isinstance(target, list) else target[p]  # type: ignore[index]
    if isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value  # type: ignore[index]
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", "quarkctl.bundle/2"), ("surprise", 1), ("product", "../x"), ("product", ""), ("hardware", [1]),
        ("chunk_bytes", 4096), ("chips.rtos.version", "1.1"), ("chips.rtos.rollback_index", -1),
        ("chips.rtos.rollback_index", True), ("chips.rtos.needs", {"rtos": "1.0.0"}), ("chips.rtos.needs", {"ar1": "x"}),
        ("chips.rtos.needs", {"ar1": "9.0.0"}), ("chips", {}), ("components", []), ("components.0.format", "elf"),
        ("components.0.chip", "gpu"), ("components.0.size_bytes", 1), ("components.0.extents", []),
        ("components.0.extents.0.member", "ar1/boot.img"), ("components.0.extents.0.offset_bytes", 1),
        ("components.0.target", "boot"), ("components.0.format", "raw"),
        ("components.2.target", "boot"), ("members.1.size_bytes", 1 << 30),
        ("members.1.chunks", ""), ("members.1.chunks", "!"), ("members.1.crc32", "ABCDEF00"), ("members.1.sha256", "00"),
        ("members.1.name", "quarkctl/manifest.json"), ("members.2.name", "rtos/rtos.bin"), ("notes", {"a": 1}),
        ("tool_version", None), ("source_date_epoch", "0"), ("version", "a\nb"),
    ],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(both: bytes, path: str, value: object) -> None:
    raw = json.loads(raw_members(both)[bundle.MANIFEST_NAME])
    with pytest.raises(InputWrong):
        bundle.parse(change(raw, path, value))


V = Version.parse


@pytest.mark.parametrize(
    ("needs", "versions", "allowed"),
    [
        (("1.0.0", "1.0.0"), ("1.1.0", "1.0.1"), True),
        (("1.0.0", "1.0.0"), ("1.1.0", "1.0.0"), True),
        (("1.0.0", "1.0.0"), ("1.0.0", "1.0.1"), True),
        (("1.0.0", "1.1.0"), ("1.0.0", "1.0.1"), False),
        (("1.0.1", "1.1.0"), ("1.1.0", "1.0.0"), False),
        (("", ""), ("1.1.0", "1.0.0"), False),
        (("", ""), ("1.1.0", "1.0.1"), True),
        (("", ""), ("1.0.0", "1.0.0"), True),  # neither is new: they ran together before
    ],
)
def test_which_versions_may_run_together(
    tmp_path: Path, needs: tuple[str, str], versions: tuple[str, str], allowed: bool
) -> None:
    made: Manifest = bundles.make(tmp_path, ar1={"boot": b"b"}, needs=needs).manifest
    assert made.allows({"rtos": V(versions[0]), "ar1": V(versions[1])}) is allowed
