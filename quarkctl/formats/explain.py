"""What an image of the application processor is, as a tree of plain values: for people, for ``--json``, for comparing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from quarkctl.errors import InputWrong
from quarkctl.formats import avb, bootimg, cpio, dtbo, gpt, lp, rawprogram, sparse, verity
from quarkctl.formats.record import Record, Source
from quarkctl.formats.segments import Joined, Segment, Span, digest

Tree = dict[str, Any]
#: The beginnings of superblocks, at offset 1024. Sources: Linux ``fs/ext4/ext4.h`` and ``fs/erofs/erofs_fs.h``.
_EXT4 = Record(
    "ext4 superblock", "<",
    "s_inodes_count:I s_blocks_count_lo:I unused:4I s_log_block_size:I unused2:19I s_uuid:16s s_volume_name:16s",
)  # fmt: skip
_EROFS = Record(
    "erofs superblock", "<",
    "magic:I checksum:I feature_compat:I blkszbits:B extslots:B root_nid:H inos:Q build_time:Q build_time_nsec:I blocks:I "
    "meta_blkaddr:I xattr_blkaddr:I uuid:16s volume_name:16s",
)  # fmt: skip
#: A few bytes of a sparse or super image can claim any length. No partition is larger, and hashing more takes minutes.
_CHECKED_BYTES_MAX = 16 << 30
#: Chunks, files and the like beyond this number are counted and not listed.
_LISTED_MAX = 1000


def explain(data: Source, run: verity.Run = verity.here) -> Tree | None:
    """The tree of an image, None for a kind that is not known. Raises InputWrong (Damaged) with offset and field.

    ``run`` spreads the checking of hash trees, see `verity.Run`.
    """
    for looks_like, describe in _KINDS:
        if looks_like(data):
            tree = describe(data, run)
            return tree if tree["kind"] == "vbmeta structure" else {**tree, **_footer(data, run)}
    footer = _footer(data, run)
    return {"kind": "partition image", "bytes": len(data), **footer} if footer else None


def _digest(part: Segment) -> str:
    return digest([part]).hex() if len(part) else "-"


def _sparse(data: Source, run: verity.Run) -> Tree:
    image = sparse.parse(data)
    counts = {k.name.lower(): sum(c.blocks for c in image.chunks if c.kind is k) for k in sparse.Kind}
    tree: Tree = {
        "kind": "Android sparse image", "block_bytes": image.block_bytes, "expanded_bytes": image.size_bytes,
        "chunks": len(image.chunks), "blocks": {k: n for k, n in counts.items() if n},
    }  # fmt: skip
    try:
        inner = explain(sparse.Expanded(image), run)
    except InputWrong as error:
        raise InputWrong(f"expanded: {error.message}", error.hint) from error
    return {**tree, "content": inner} if inner else tree


def _gpt(data: Source, _: verity.Run) -> Tree:
    backup_alone = not gpt.sector_bytes_of(data)
    table = gpt.parse_backup(data) if backup_alone else gpt.parse(data)
    return {
        "kind": "backup partition table" if backup_alone else "partition table", "sector_bytes": table.sector_bytes,
        "disk_sectors": table.sectors, "disk_guid": str(table.disk_guid), "checksums": "match",
        "problems": list(table.problems) or None,
        "partitions": [
            {
                "kind": p.name, "first": p.first_lba, "last": p.last_lba, "bytes": p.sectors * table.sector_bytes,
                "type": str(p.type_guid), "guid": str(p.guid), **gpt.attribute_values(p.attributes),
            }
            for p in table.partitions
        ],
    }  # fmt: skip


def _xml(data: Source, _: verity.Run) -> Tree:
    raw = bytes(data[: len(data)])
    if rawprogram.kind_of(raw) == "data":
        programs = rawprogram.parse_programs(raw)
        return {
            "kind": "rawprogram XML",
            "programs": [
                {
                    "kind": p.label or "-", "lun": p.lun, "start": str(p.start), "sectors": p.sectors,
                    "file": p.filename or "-", **({"sparse": "yes"} if p.sparse else {}),
                }
                for p in programs
            ],
        }  # fmt: skip
    patches = rawprogram.parse_patches(raw)
    return {
        "kind": "patch XML",
        "patches": [
            {
                "kind": p.filename,
                "lun": p.lun,
                "start": str(p.start),
                "byte": p.byte_offset,
                "bytes": p.size_bytes,
                "value": p.value,
            }
            for p in patches
        ],
    }


def _vbmeta_tree(m: avb.Vbmeta) -> Tree:
    return {
        "algorithm": avb.ALGORITHM_NAMES[m.algorithm],
        "signature": m.trust() or "verified by the key inside",
        "public_key_sha256": hashlib.sha256(m.public_key).hexdigest() if m.public_key else None,
        "rollback_index": m.rollback_index, "rollback_index_location": m.rollback_index_location, "flags": m.flags,
        "required_libavb": f"1.{m.required_minor}", "release": m.release, "vbmeta_bytes": m.size_bytes,
        "unknown_descriptors": list(m.unknown_tags) or None,
        "descriptors": [_descriptor(d) for d in m.descriptors],
    }  # fmt: skip


def _descriptor(d: avb.Descriptor) -> Tree:
    if isinstance(d, avb.Property):
        return {"kind": "property", "key": d.key, "value": d.value.decode("utf-8", "backslashreplace")}
    if isinstance(d, avb.KernelCmdline):
        return {"kind": "kernel command line", "text": d.text, "flags": d.flags}
    if isinstance(d, avb.Chain):
        return {
            "kind": "chain", "partition": d.partition, "location": d.rollback_index_location,
            "public_key_sha256": hashlib.sha256(d.key_blob).hexdigest(),
        }  # fmt: skip
    if isinstance(d, avb.Hash):
        return {
            "kind": "hash", "partition": d.partition, "bytes": d.image_size, "algorithm": d.hash_algorithm,
            "salt": d.salt.hex(), "digest": d.digest.hex(),
        }  # fmt: skip
    return {
        "kind": "hash tree", "partition": d.partition, "bytes": d.image_size, "algorithm": d.hash_algorithm,
        "salt": d.salt.hex(), "root_digest": d.root_digest.hex(), "tree_offset": d.tree_offset, "tree_bytes": d.tree_size,
        "fec_roots": d.fec_roots, "fec_offset": d.fec_offset, "fec_bytes": d.fec_size,
    }  # fmt: skip


def _vbmeta(data: Source, _: verity.Run) -> Tree:
    return {"kind": "vbmeta structure", **_vbmeta_tree(avb.parse(data))}


def _footer(data: Source, run: verity.Run) -> Tree:
    """What a footer binds, and whether the bytes are those."""
    found = avb.of_partition(data)
    if found is None:
        return {}
    footer, meta = found
    tree = _vbmeta_tree(meta)
    problems = []
    for d, at in zip(meta.descriptors, meta.offsets, strict=True):
        if not isinstance(d, avb.Hash | avb.Hashtree):
            continue
        try:
            avb.check_inside(d, at, len(data))
        except InputWrong as error:
            problems.append(error.message)
            tree["content_check"] = "not checked: the descriptor binds more than there is"
        else:
            tree["content_check"] = _check_hash(data, d) if isinstance(d, avb.Hash) else _check_tree(data, d, run)
    tree["problems"] = problems or None
    return {"verified_boot": {"original_bytes": footer.original_size, "vbmeta_offset": footer.vbmeta_offset, **tree}}


def _check_hash(data: Source, d: avb.Hash) -> str:
    if d.image_size > _CHECKED_BYTES_MAX:
        return f"not checked: more than {_CHECKED_BYTES_MAX >> 30} GiB"
    try:
        h = avb.hasher(d.hash_algorithm, d.salt)
    except InputWrong as error:
        return f"not checked: {error.message}"
    for at in range(0, d.image_size, 1 << 20):
        h.update(data[at : min(at + (1 << 20), d.image_size)])
    return "matches the descriptor" if h.digest() == d.digest else "does not match the descriptor"


def _check_tree(data: Source, d: avb.Hashtree, run: verity.Run) -> str:
    end = max(d.image_size, d.tree_offset + d.tree_size, d.fec_offset + d.fec_size)
    if end > _CHECKED_BYTES_MAX:
        return f"not checked: more than {_CHECKED_BYTES_MAX >> 30} GiB"
    if d.data_block_bytes != verity.BLOCK_BYTES or d.hash_block_bytes != verity.BLOCK_BYTES:
        return f"blocks of {d.data_block_bytes} bytes are not checked"
    if not d.image_size or d.image_size % verity.BLOCK_BYTES:
        return f"{d.image_size} bytes of data are no whole blocks"
    part = Joined([Span(data, 0, d.image_size)])
    try:
        if d.fec_roots:
            made = verity.protect(part, d.salt, d.fec_roots, d.hash_algorithm, run=run)
            tree, fec = made.tree, made.fec
        else:
            tree, fec = verity.tree(part, d.salt, d.hash_algorithm, run=run), b""
    except InputWrong as error:
        return f"not checked: {error.message}"
    if tree.root != d.root_digest:
        return "data do not match the root digest"
    if tree.levels != bytes(data[d.tree_offset : d.tree_offset + d.tree_size]):
        return "the stored hash tree is not that of the data"
    if fec != bytes(data[d.fec_offset : d.fec_offset + d.fec_size]):
        return "the stored codes are not those of the data"
    return "data, tree and codes match" if d.fec_roots else "data and tree match"


def _boot(data: Source, _: verity.Run) -> Tree:
    if bytes(data[:8]) == b"VNDRBOOT":
        v = bootimg.parse_vendor(data)
        return {
            "kind": "vendor_boot image", "header_version": v.header_version, "page_bytes": v.page_bytes,
            "product": v.product, "cmdline": v.cmdline, "dtb_bytes": len(v.dtb), "dtb_sha256": _digest(v.dtb),
            "bootconfig": v.bootconfig.decode("utf-8", "backslashreplace").splitlines() or None,
            "fragments": [
                {"kind": f.type, "name": f.name or "-", "bytes": len(f.data), "sha256": _digest(f.data)} for f in v.fragments
            ],
        }  # fmt: skip
    b = bootimg.parse_boot(data)
    return {
        "kind": "boot image" if len(b.kernel) else "init_boot image", "header_version": b.header_version,
        "os_version": b.os_version or None, "os_patch_level": b.os_patch_level or None, "cmdline": b.cmdline or None,
        "kernel_bytes": len(b.kernel), "kernel_sha256": _digest(b.kernel), "ramdisk_bytes": len(b.ramdisk),
        "ramdisk_sha256": _digest(b.ramdisk), "gki_signature_bytes": len(b.signature),
    }  # fmt: skip


def _dtbo(data: Source, _: verity.Run) -> Tree:
    return {
        "kind": "dtbo image",
        "trees": [
            {"kind": f"{n}", "id": e.id, "rev": e.rev, "bytes": len(e.data), "sha256": _digest(e.data)}
            for n, e in enumerate(dtbo.parse(data)[:_LISTED_MAX])
        ],
    }


def _super(data: Source, run: verity.Run) -> Tree:
    m = lp.parse(data)
    return {
        "kind": "super image", "metadata_version": f"10.{m.minor}",
        "flags": ", ".join(n for n, bit in lp.HEADER_FLAGS.items() if m.flags & bit) or None, "slots": m.slot_count,
        "metadata_bytes_max": m.metadata_bytes_max, "problems": list(m.problems) or None,
        "groups": [{"kind": g.name, "maximum_bytes": g.size_bytes_max or "no limit"} for g in m.groups],
        "devices": [{"kind": d.name, "bytes": d.size_bytes, "first_sector": d.first_sector} for d in m.devices],
        "partitions": [
            {
                "kind": p.name, "group": m.groups[p.group].name, "bytes": p.size_bytes,
                "extents": ", ".join(_extent(e) for e in p.extents) or "-",
                "attributes": ", ".join(n for n, bit in lp.PARTITION_ATTRIBUTES.items() if p.attributes & bit) or "-",
                **_member(m, data, p, run),
            }
            for p in m.partitions
        ],
    }  # fmt: skip


def _extent(e: lp.Extent) -> str:
    return f"{e.sectors}@{e.start}" if e.kind == lp.LINEAR else f"{e.sectors} zeros"


def _member(m: lp.Metadata, data: Source, p: lp.Partition, run: verity.Run) -> Tree:
    if not p.extents or len(m.devices) != 1:
        return {}
    try:
        inner = _footer(Joined(m.read(data, p)), run).get("verified_boot")
    except InputWrong as error:
        return {"problems": [f"{p.name}: {error.message}"]}
    if not inner:
        return {}
    told = {"verified_boot": f"{inner['signature']}; {inner.get('content_check', 'no content')}"}
    return told | ({"problems": [f"{p.name}: {x}" for x in inner["problems"]]} if inner["problems"] else {})


def _ramdisk(data: Source, _: verity.Run) -> Tree:
    entries = list(cpio.parse(data))
    return {
        "kind": "ramdisk (cpio)", "entries": len(entries),
        "files": [
            {"kind": e.name, "mode": f"{e.mode:06o}", "owner": f"{e.uid}:{e.gid}", "bytes": len(e.data)}
            for e in entries[:_LISTED_MAX]
        ],
    }  # fmt: skip


def _ext4(data: Source, _: verity.Run) -> Tree:
    h = _EXT4.parse(data, 1024)
    if h.s_log_block_size > 6:
        raise _EXT4.wrong("s_log_block_size", 1024, f"is {h.s_log_block_size}: blocks have at most 64 KiB")
    block = 1024 << h.s_log_block_size
    if h.s_blocks_count_lo * block > len(data):
        raise _EXT4.wrong(
            "s_blocks_count_lo",
            1024,
            f"is {h.s_blocks_count_lo} blocks of {block} bytes, the file has {len(data)} bytes",
        )
    return {
        "kind": "ext4 file system", "block_bytes": block, "blocks": h.s_blocks_count_lo, "inodes": h.s_inodes_count,
        "label": h.s_volume_name.partition(b"\0")[0].decode("utf-8", "replace"), "uuid": h.s_uuid.hex(),
    }  # fmt: skip


def _erofs(data: Source, _: verity.Run) -> Tree:
    h = _EROFS.parse(data, 1024)
    if not 9 <= h.blkszbits <= 16:
        raise _EROFS.wrong("blkszbits", 1024, f"is {h.blkszbits}: blocks have 512 bytes to 64 KiB")
    if h.blocks << h.blkszbits > len(data):
        raise _EROFS.wrong("blocks", 1024, f"is {h.blocks} of {1 << h.blkszbits} bytes, the file has {len(data)} bytes")
    return {
        "kind": "erofs file system", "block_bytes": 1 << h.blkszbits, "blocks": h.blocks, "inodes": h.inos,
        "uuid": h.uuid.hex(), "label": h.volume_name.partition(b"\0")[0].decode("utf-8", "replace"),
    }  # fmt: skip


_KINDS: list[tuple[Callable[[Source], bool], Callable[[Source, verity.Run], Tree]]] = [
    (sparse.looks_like, _sparse),
    (avb.looks_like, _vbmeta),
    (bootimg.looks_like, _boot),
    (dtbo.looks_like, _dtbo),
    (cpio.looks_like, _ramdisk),
    (lp.looks_like, _super),
    (lambda d: bool(gpt.sector_bytes_of(d) or gpt.backup_sector_bytes_of(d)), _gpt),
    (
        lambda d: (
            len(d) <= rawprogram.XML_BYTES_MAX and bytes(d[:1]) == b"<" and bool(rawprogram.kind_of(bytes(d[:4096])))
        ),
        _xml,
    ),
    (lambda d: bytes(d[1080:1082]) == b"\x53\xef", _ext4),
    (lambda d: bytes(d[1024:1028]) == b"\xe2\xe1\xf5\xe0", _erofs),
]


def differences(a: Tree, b: Tree) -> list[tuple[str, Any, Any]]:
    """Every value that differs, as (dotted path, in a, in b); None where one side has none."""
    left, right = dict(_leaves("", a)), dict(_leaves("", b))
    return [
        (p, left.get(p), right.get(p))
        for p in [*left, *(p for p in right if p not in left)]
        if left.get(p) != right.get(p)
    ]


def _leaves(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _leaves(f"{prefix}.{k}" if prefix else str(k), v)]
    if isinstance(value, list):
        named = [v.get("name") or v.get("partition") or v.get("kind") if isinstance(v, dict) else None for v in value]
        unique = len(set(map(str, named))) == len(named)
        return [
            leaf
            for n, v in enumerate(value)
            for leaf in _leaves(f"{prefix}[{named[n] if unique and named[n] else n}]", v)
        ]
    return [(prefix, value)]
