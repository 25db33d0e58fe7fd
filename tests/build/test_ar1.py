"""Images of the application processor from a specification: the same bytes anywhere, nothing twice, nothing half."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import serialization

from quarkctl.build import sign
from quarkctl.build.ar1 import agent, request, spec
from quarkctl.errors import InputWrong, VerificationFailed
from quarkctl.events import Event, Level
from quarkctl.formats import avb, lp, rawprogram, sparse
from quarkctl.formats.segments import joined
from tests.conftest import Quarkctl
from tests.formats import second_reader
from tests.formats.samples import rsa_key

SPEC = """\
schema = "quarkctl.ar1/1"
product = "test-board"
version = "1.0.0"

[keys.main]
signer = "main.pem"
algorithm = "SHA256_RSA2048"

[keys.vendor]
signer = "vendor.pem"
algorithm = "SHA512_RSA2048"

[kernel]
image = "Image"

[image.boot]
kind = "boot"
kernel = "kernel"
kernel_compress = "gzip"
cmdline = "console=ttyS0"
avb = { footer = "hash", partition_size = "1 MiB" }

[image.init_boot]
kind = "boot"
ramdisk = { folder = "root", manifest = "manifest", compress = "zstd" }
avb = { footer = "hash", partition_size = "1 MiB" }

[image.vendor_boot]
kind = "vendor_boot"
dtb = ["board.dtb"]
bootconfig = ["androidboot.hardware=test"]
fragment = [
  { ramdisk = { folder = "root", compress = "lz4" } },
  { type = "dlkm", name = "dlkm", ramdisk = { cpio = "extra.cpio" } },
]
avb = { footer = "hash", partition_size = "1 MiB", key = "vendor", rollback_index = 3, rollback_index_location = 1 }

[image.dtbo]
kind = "dtbo"
tree = [{ file = "board.dtb", id = 1 }, { file = "board.dtb", id = 2 }]
avb = { footer = "hash", partition_size = "1 MiB" }

[image.system]
kind = "ext4"
folder = "root"
manifest = "manifest"
output = true
avb = { footer = "hashtree" }
[image.vendor]
kind = "erofs"
folder = "root"
manifest = "manifest"
avb = { footer = "hashtree", fec_roots = 4 }

[image.data]
kind = "raw"
file = "data.img"
avb = { footer = "hashtree", partition_size = "4 MiB", properties = { flavour = "plain" } }
sparse = true

[image.super]
kind = "super"
size = "16 MiB"
virtual_ab = true
group.main = { maximum_size = "12 MiB" }
partition = [{ name = "system", group = "main", image = "system" }, { name = "vendor", group = "main", image = "vendor" },
             { name = "spare", group = "main" }]
sparse = true

[image.vbmeta]
kind = "vbmeta"
key = "main"
rollback_index = 7
include = ["boot", "init_boot", "vendor_boot", "dtbo", "system", "vendor", "data"]

[storage]
sector_size = 4096

[[storage.lun]]
number = 0
size = "64 MiB"
partition = [
  { name = "super", size = "16 MiB", image = "super" },
  { name = "data", size = "4 MiB", image = "data" },
  { name = "userdata", size = "grow" },
]

[[storage.lun]]
number = 4
partition = [
  { name = "boot", size = "1 MiB", ab = true, image = "boot" },
  { name = "init_boot", size = "1 MiB", ab = true, image = "init_boot" },
  { name = "vendor_boot", size = "1 MiB", ab = true, image = "vendor_boot" },
  { name = "dtbo", size = "1 MiB", ab = true, image = "dtbo" },
  { name = "vbmeta", size = "64 KiB", ab = true, image = "vbmeta" },
]
"""
OUTPUTS = {
    "boot.img", "init_boot.img", "vendor_boot.img", "dtbo.img", "data.img", "super.img", "vbmeta.img",
    "logical/system.img",
    *(f"{kind}{n}{end}" for n in (0, 4) for kind, end in
      (("gpt_main", ".bin"), ("gpt_backup", ".bin"), ("rawprogram", ".xml"), ("patch", ".xml"))),
}  # fmt: skip


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    from cryptography.hazmat.primitives.asymmetric import rsa

    for name, key in (("main", rsa_key(2048)), ("vendor", rsa.generate_private_key(65537, 2048))):
        (folder / f"{name}.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return folder


def workspace(folder: Path, keys: Path, *, order: int = 1, text: str = SPEC) -> Path:
    """Sources of a small build; ``order`` changes what must not matter: times, umask, the order of creation."""
    folder.mkdir(parents=True)
    (folder / "spec.toml").write_text(text)
    for name in ("main.pem", "vendor.pem"):
        shutil.copy(keys / name, folder / name)
    (folder / "Image").write_bytes(b"kernel" * 9999)
    (folder / "board.dtb").write_bytes(b"\xd0\x0d\xfe\xed" * 99)
    (folder / "data.img").write_bytes(bytes(900 * 1024) + b"data" * 40000 + bytes(300))
    (folder / "extra.cpio").write_bytes(b"070701" + b"0" * 104 + b"x")
    (folder / "manifest").write_text("0750 0 2000 bin/*\n0600 1000 1000 secret\n")
    files = {"bin/tool": b"#!/bin/sh\n", "etc/conf": b"x=1\n", "secret": b"hidden", "big": bytes(range(256)) * 4000,
             "a name": b"", "usr/lib/deep/er/file": b"end"}  # fmt: skip
    for n, (name, data) in enumerate(sorted(files.items(), reverse=order == 2)):
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if name == "bin/tool" else 0o640 if order == 2 else 0o644)
        os.utime(path, (order * 10**8 + n, order * 10**8 + n))
    (folder / "root/link").symlink_to("bin/tool")
    (folder / "root/etc").chmod(0o700 if order == 2 else 0o755)
    return folder / "spec.toml"


def contents(out: Path) -> dict[str, str]:
    return {n: hashlib.sha256((out / n).read_bytes()).hexdigest() for n in OUTPUTS}


@pytest.fixture
def built(tmp_path: Path, keys: Path) -> tuple[Path, Path]:
    """A specification and where it was built."""
    file = workspace(tmp_path / "work", keys)
    request.build(request.Request(file, tmp_path / "out"))
    return file, tmp_path / "out"


def test_two_folders_clocks_locales_and_umasks_give_the_same_bytes(
    tmp_path: Path, keys: Path, quarkctl: Quarkctl
) -> None:
    first = workspace(tmp_path / "one", keys)
    second = workspace(tmp_path / "another place" / "two", keys, order=2)
    done = quarkctl("build", "ar1", "--spec", first, "--out", tmp_path / "out one", "--json")
    assert done.code == 0, done.err
    assert set(done.json["files"]) == OUTPUTS
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8"}
    subprocess.run(
        ["faketime", "2033-05-05 05:05:05", *Quarkctl.command("build", "ar1", "--spec", second, "--out", "out two")],
        cwd=tmp_path, check=True, env=environment, umask=0o077, capture_output=True,
    )  # fmt: skip
    assert contents(tmp_path / "out one") == contents(tmp_path / "out two")


def test_an_unchanged_build_does_nothing_and_a_change_makes_only_what_depends_on_it(built: tuple[Path, Path]) -> None:
    file, out = built
    wanted = request.Request(file, out)
    before, stamps = contents(out), {n: (out / n).stat().st_mtime_ns for n in OUTPUTS}
    assert request.build(wanted).made == []
    os.utime(file.parent / "Image")  # looks newer, is the same
    os.utime(file.parent / "root/big")
    again = request.build(wanted)
    assert again.made == [] and contents(out) == before
    assert {n: (out / n).stat().st_mtime_ns for n in OUTPUTS} == stamps
    (file.parent / "root/etc/conf").write_bytes(b"x=2\n")
    changed = request.build(wanted)
    assert set(changed.made) == {"init_boot", "vendor_boot", "system", "vendor", "super", "vbmeta"}
    after = contents(out)
    assert {n for n in OUTPUTS if after[n] != before[n]} == {
        "init_boot.img",
        "vendor_boot.img",
        "logical/system.img",
        "super.img",
        "vbmeta.img",
    }
    (file.parent / "root/etc/conf").write_bytes(b"x=1\n")
    assert request.build(wanted).made == ["vbmeta"]  # the rest is kept from the first build
    assert contents(out) == before


def test_going_back_to_another_specification_makes_nothing(built: tuple[Path, Path], quarkctl: Quarkctl) -> None:
    file, out = built
    other = file.with_name("other.toml")
    other.write_text(SPEC.replace('cmdline = "console=ttyS0"', 'cmdline = "quiet"'))
    first = contents(out)
    made = request.build(request.Request(other, out)).made
    assert made == ["boot", "vbmeta"]
    second = contents(out)
    for wanted, held in ((file, first), (other, second), (file, first)):
        done = quarkctl("build", "ar1", "--spec", wanted, "--out", out, "--json")
        assert done.code == 0 and done.json["made"] == [] and done.json["restored"] is True
        assert contents(out) == held and done.json["kept"]["builds"] == 2
        assert done.json["kept"]["bytes"] < (1 << 20) + (64 << 10) < 2 * (out / "super.img").stat().st_size
    assert "nothing changed" in quarkctl("build", "ar1", "--spec", file, "--out", out).out


@pytest.mark.parametrize("how", ["content", "times kept", "replaced", "shorter", "gone", "record"])
def test_a_kept_build_that_somebody_changed_is_not_used(built: tuple[Path, Path], how: str) -> None:
    file, out = built
    before = contents(out)
    (entry,) = (out / ".work/cache").iterdir()
    other = file.with_name("other.toml")
    other.write_text(SPEC + "# another\n")
    (file.parent / "Image").write_bytes(b"new kernel" * 9999)
    request.build(request.Request(other, out))
    (file.parent / "Image").write_bytes(b"kernel" * 9999)
    victim = entry / "boot.img"
    times = victim.stat().st_atime_ns, victim.stat().st_mtime_ns
    if how in ("content", "times kept"):
        with victim.open("r+b") as f:
            f.write(b"oops")
        if how == "times kept":
            os.utime(victim, ns=times)
    elif how == "replaced":
        data = victim.read_bytes()
        victim.unlink()
        victim.write_bytes(data)
    elif how == "shorter":
        os.truncate(victim, 4096)
    elif how == "gone":
        victim.unlink()
    else:
        text = (entry / "ar1.json").read_text()
        (entry / "ar1.json").write_text(text.replace('"version": "1.0.0"', '"version": "6.6.6"'))
    notes: list[Event] = []
    assert "boot" in request.build(request.Request(file, out), notes.append).made
    assert contents(out) == before
    assert [e.text for e in notes if e.step == "cache"] == ["somebody changed 1 earlier builds: removed, not used"]


def test_the_oldest_builds_are_forgotten(built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = built
    monkeypatch.setattr("quarkctl.build.ar1.cache.BUILDS_MAX", 3)

    def build(n: int) -> request.Built:
        return request.build(request.Request(file, out, version=f"1.0.{n}"))

    for n in (1, 2, 3):
        assert build(n).kept["builds"] == min(n + 1, 3)
    assert build(1).restored and build(4).kept["builds"] == 3  # 2 is the oldest now
    assert build(1).restored and build(3).restored and not build(2).restored
    monkeypatch.setattr("quarkctl.build.ar1.cache.BYTES_MAX", 4096)
    assert build(5).kept == {"builds": 1, "bytes": 0, "builds_max": 3, "bytes_max": 4096}


def test_sparse_images_in_pieces_are_joined_by_simg2img(built: tuple[Path, Path], tmp_path: Path) -> None:
    file, out = built
    (file.parent / "data.img").write_bytes(random.Random(4).randbytes(900 * 1024) + bytes(1 << 20))
    whole = request.build(request.Request(file, out)).files
    subprocess.run(["simg2img", out / "data.img", tmp_path / "whole"], check=True, capture_output=True)
    file.write_text(SPEC.replace("sparse = true\n\n[image.super]", 'sparse = "256 KiB"\n\n[image.super]'))
    cut = request.build(request.Request(file, out)).files
    pieces = sorted(set(cut) - set(whole))
    assert pieces == [f"data.img.{n}" for n in range(4)] and set(whole) - set(cut) == {"data.img"}
    assert all((out / p).stat().st_size <= 256 << 10 for p in pieces) and not (out / "data.img").exists()
    subprocess.run(["simg2img", *(out / p for p in pieces), tmp_path / "joined"], check=True, capture_output=True)
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()
    named = [p for p in rawprogram.parse_programs((out / "rawprogram0.xml").read_bytes()) if p.label == "data"]
    assert [p.filename for p in named] == pieces and all(p.sparse for p in named)
    assert len({(p.start, p.sectors) for p in named}) == 1


def test_an_output_that_is_no_longer_asked_for_goes_away(built: tuple[Path, Path]) -> None:
    file, out = built
    (out / "mine.img").write_bytes(b"not ours")
    file.write_text(SPEC.replace("output = true\n", ""))
    assert "logical/system.img" not in request.build(request.Request(file, out)).files
    assert not (out / "logical/system.img").exists()
    assert (out / "mine.img").read_bytes() == b"not ours"
    file.write_text(
        file.read_text().replace(
            '{ name = "userdata"', '{ name = "x", size = "4 MiB", image = "system" }, { name = "userdata"'
        )
    )
    with pytest.raises(InputWrong, match="xml-files: x on LUN 0 names system, which is only a part of super"):
        request.build(request.Request(file, out))


def test_an_output_that_somebody_touched_is_built_again(built: tuple[Path, Path]) -> None:
    file, out = built
    before = contents(out)
    for name in ("super.img", "vbmeta.img", "boot.img", "rawprogram4.xml"):
        with (out / name).open("r+b") as f:
            f.write(b"oops")
    request.build(request.Request(file, out))
    assert contents(out) == before


def test_inputs_stay_as_they_are(tmp_path: Path, keys: Path) -> None:
    file = workspace(tmp_path / "work", keys)

    def state() -> dict[str, tuple[int, int, bytes]]:
        return {
            str(p): (p.lstat().st_mtime_ns, p.lstat().st_mode, p.read_bytes() if p.is_file() else b"")
            for p in sorted((tmp_path / "work").rglob("*"))
        }

    before = state()
    request.build(request.Request(file, tmp_path / "out"))
    assert state() == before


def test_a_build_that_fails_leaves_the_last_one_whole(
    built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = built
    before = contents(out)
    (file.parent / "root/etc/conf").write_bytes(b"x=3\n")

    def broken(*_: object, **__: object) -> None:
        raise VerificationFailed("read back wrong")

    monkeypatch.setattr("quarkctl.build.ar1.verify.vbmeta", broken)
    with pytest.raises(VerificationFailed):
        request.build(request.Request(file, out))
    assert contents(out) == before
    monkeypatch.undo()
    assert request.build(request.Request(file, out)).made


def test_strangers_read_the_file_systems_out_of_super_and_their_trees(built: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = built
    subprocess.run(["simg2img", out / "super.img", tmp_path / "super.raw"], check=True, capture_output=True)
    data = (tmp_path / "super.raw").read_bytes()
    found = second_reader.super_image(data, 0, backup=False)
    assert found["minor"] == 2 and found["flags"] == 1
    partitions = found["partitions"]
    assert isinstance(partitions, dict) and set(partitions) == {
        f"{n}_{s}" for n in ("system", "vendor", "spare") for s in "ab"
    }
    top = avb.parse((out / "vbmeta.img").read_bytes())
    for name, check in (("system", ["e2fsck", "-fn"]), ("vendor", ["fsck.erofs"])):
        image = tmp_path / name
        image.write_bytes(partitions[f"{name}_a"][2])
        d = top.descriptor(name)
        assert isinstance(d, avb.Hashtree)
        (tmp_path / "fs").write_bytes(image.read_bytes()[: d.image_size])
        assert subprocess.run([*check, tmp_path / "fs"], capture_output=True).returncode == 0
        verity = ["--no-superblock", "--hash", d.hash_algorithm, "--salt", d.salt.hex(), "--data-blocks",
                  str(d.image_size // 4096), "--hash-offset", str(d.tree_offset)]  # fmt: skip
        subprocess.run(
            ["veritysetup", "verify", *verity, image, image, d.root_digest.hex()], check=True, capture_output=True
        )
        fec = tmp_path / "fec"
        fec.unlink(missing_ok=True)
        (tmp_path / "tree").unlink(missing_ok=True)
        subprocess.run(
            ["veritysetup", "format", "--no-superblock", "--hash", "sha256", "--salt", d.salt.hex(), tmp_path / "fs",
             tmp_path / "tree", "--fec-device", fec, "--fec-roots", str(d.fec_roots)], check=True, capture_output=True,
        )  # fmt: skip
        assert image.read_bytes()[d.fec_offset : d.fec_offset + d.fec_size] == fec.read_bytes()
    listed = subprocess.run(["debugfs", "-R", "ls -l /bin", tmp_path / "system"], capture_output=True, text=True).stdout
    assert [w for line in listed.splitlines() if "tool" in line for w in line.split()[1:5]] == [
        "100750",
        "(1)",
        "0",
        "2000",
    ]


def test_the_chain_of_trust_is_read_by_openssl(built: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = built
    top = second_reader.vbmeta((out / "vbmeta.img").read_bytes())
    assert second_reader.openssl_verifies(top, tmp_path) and top["rollback_index"] == 7
    vendor = (out / "vendor_boot.img").read_bytes()
    at = int.from_bytes(vendor[-64 + 20 : -64 + 28], "big")
    chained = second_reader.vbmeta(vendor[at:])
    assert second_reader.openssl_verifies(chained, tmp_path) and chained["rollback_index"] == 3
    descriptors = top["descriptors"]
    assert isinstance(descriptors, list)
    assert ("chain", b"vendor_boot", 1, chained["key"]) in descriptors
    assert {d[1] for d in descriptors if d[0] in ("hash", "hashtree")} == {
        b"boot", b"init_boot", b"dtbo", b"system", b"vendor", b"data"
    }  # fmt: skip


def test_signing_elsewhere_gives_the_images_that_signing_here_gives(tmp_path: Path, keys: Path) -> None:
    here = workspace(tmp_path / "here", keys)
    request.build(request.Request(here, tmp_path / "out"))
    for name in ("main", "vendor"):
        key = serialization.load_pem_private_key((keys / f"{name}.pem").read_bytes(), None)
        (tmp_path / f"{name}.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    text = SPEC
    for name in ("main", "vendor"):
        text = text.replace(f'"{name}.pem"', f'"detached:{tmp_path}/{name}.pub?folder={tmp_path}/requests"')
    away = workspace(tmp_path / "away", keys, text=text)
    with pytest.raises(sign.SignaturesWanted, match="wanted from elsewhere"):
        request.build(request.Request(away, tmp_path / "out2"))
    assert not [p for p in (tmp_path / "out2").iterdir() if not p.name.startswith(".")]
    requests = [json.loads(p.read_text()) for p in (tmp_path / "requests").glob("*.json")]
    assert {r["artifact"] for r in requests} == {"test-board/vbmeta", "test-board/vendor_boot"}
    for r in requests:
        key = keys / ("main.pem" if "vbmeta" in r["artifact"] else "vendor.pem")
        subprocess.run(
            ["openssl", "dgst", f"-{r['algorithm'].rpartition('-')[2]}", "-sign", key, "-out", r["signature_file"],
             r["message_file"]], cwd=tmp_path / "requests", check=True,
        )  # fmt: skip
    done = request.build(request.Request(away, tmp_path / "out2"))
    assert contents(tmp_path / "out") == contents(tmp_path / "out2")
    assert {s["artifact"] for s in done.signatures} == {"test-board/vbmeta", "test-board/vendor_boot"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('partition_size = "1 MiB" }\n\n[image.init', 'partition_size = "64 KiB" }\n\n[image.init',
         r"avb-size: boot: image \d+ \+ vbmeta 65536 \+ footer 4096 is \d+ bytes, the partition has 65536"),
        ('partition_size = "4 MiB"', 'partition_size = "1 MiB"', r"avb-size: data: image \d+ \+ tree \d+ \+ codes \d+"),
        ("rollback_index = 7\n", "rollback_index = 7\nflags = 2\n", "avb-flags: vbmeta has flags 2"),
        ("[image.vbmeta]\n", "[last_release]\nvbmeta = 8\n[image.vbmeta]\n",
         "avb-rollback: vbmeta has rollback index 7, .* had 8"),
        ('"SHA256_RSA2048"', '"SHA256_RSA4096"', "avb-weak: the key main is rsa2048, its algorithm is SHA256_RSA4096"),
        ("rollback_index = 7\n", "rollback_index = 7\nrollback_index_location = 1\n",
         "avb-rollback: vendor_boot and vbmeta both use"),
        ("[kernel]", "[avb]\nlibavb_minor = 1\n[kernel]", None),
        ('kernel = "kernel"\n', "", "boot-header: boot has no kernel"),
        ('["androidboot.hardware=test"]', '[""]', "bootconfig: vendor_boot has an empty line"),
        ('name = "dlkm"', 'name = "default"', "the fragment name 'default' is reserved"),
        ("id = 2", "id = 1", "dtbo: two device trees have id 0x1"),
        ('size = "16 MiB", image = "super"', 'size = "15 MiB", image = "super"',
         r"xml-fit: super.img has 16777216 bytes, super has 15728640"),
        ('maximum_size = "12 MiB"', 'maximum_size = "1 MiB"', r"super-fit: the group main_a holds \d+ bytes"),
        ('size = "16 MiB"\nvirtual', 'size = "2 MiB"\nvirtual', "super-fit: "),
        ('size = "64 MiB"', 'size = "20 MiB"', "gpt-overlap: LUN 0"),
        ('ab = true, image = "boot"', 'ab = true, image = "boot", type_a = "T", type_b = "T"'.replace("T", str(UUID(int=5))),
         "gpt-ab-type: LUN 4: boot_a and boot_b"),
        ('{ name = "dtbo", size = "1 MiB", ab = true, image = "dtbo" },\n', "",
         "xml-files: dtbo protects the partition dtbo, which no LUN"),
        ('footer = "hash", partition_size = "1 MiB", key = "vendor"',
         'footer = "hash", partition_size = "1 MiB", key = "nobody"',
         r"spec.toml:36:52: image.vendor_boot.avb.key is 'nobody'"),
    ],
)  # fmt: skip
def test_the_linter_says_size_limit_and_cure(old: str, new: str, told: str | None, tmp_path: Path, keys: Path) -> None:
    assert old in SPEC
    file = workspace(tmp_path / "work", keys, text=SPEC.replace(old, new))
    wanted = request.Request(file, tmp_path / "out")
    if told is None:
        request.build(wanted)
        return
    with pytest.raises(InputWrong, match=told) as error:
        request.build(wanted)
    assert error.value.hint
    assert not [p for p in (tmp_path / "out").glob("*") if p.suffix in (".img", ".bin", ".xml")]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('kind = "boot"\nkernel', 'kind = "boat"\nkernel', "17:1: image.boot.kind is 'boat'"),
        ("cmdline =", "cmdlin =", "20:1: image.boot.cmdlin is not known here"),
        ('"1.0.0"', "1", "3:1: version must be a text"),
        ("[keys.main]\n", "[keys.main\n", "5:11: "),
        ('file = "data.img"', 'file = "missing.img"', "is 'missing.img': there is no such file"),
        ('"16 MiB"\nvirtual', '"16 megs"\nvirtual', "image.super.size is '16 megs', not a size"),
        ("sector_size = 4096", "sector_size = 2048", "storage.sector_size is 2048"),
        ('name = "userdata", size = "grow"', 'name = "userdata"', "size is missing"),
        ("number = 4", "number = 0", "one stands twice"),
        ("sparse = true", 'sparse = "1 KiB"', "59:1: image.data.sparse is 1024 bytes; it must be from 65536"),
        ("sparse = true", "sparse = 5", "59:1: image.data.sparse must be true or false"),
        (
            'kind = "vbmeta"',
            'kind = "vbmeta"\nsparse = true',
            "72:1: image.vbmeta.sparse is for what is flashed in pieces",
        ),
        ('product = "test-board"', 'product = "Test Board"', "2:1: product is 'Test Board'"),
        ('"1.0.0"', '"1.0"', "3:1: version is '1.0': it must be three numbers"),
        ('"1.0.0"', '"1.256.0"', "3:1: version is '1.256.0': the parts of a version are at most"),
        ('"main.pem"', '"mian.pem"', "6:1: keys.main.signer is 'mian.pem': there is no such file"),
        (
            'footer = "hash", partition_size',
            'footer = "hash", partition_siz',
            "21:26: image.boot.avb.partition_siz is not known",
        ),
        ('dtb = ["board.dtb"]', 'dtb = ["board.dtb", "no.dtb"]', "30:21: image.vendor_boot.dtb names 'no.dtb'"),
        ('type = "dlkm"', 'type = "dlmk"', "34:5: image.vendor_boot.fragment.type is 'dlmk'"),
        ('cpio = "extra.cpio"', 'cpio = "no.cpio"', "34:47: image.vendor_boot.fragment.ramdisk.cpio is 'no.cpio'"),
        ("id = 2", "id = -2", "40:63: image.dtbo.tree.id is -2"),
        ('flavour = "plain"', "flavour = 1", "58:71: image.data.avb.properties.flavour must be a text"),
        ('image = "vendor" }', 'image = "vendr" }', "66:104: image.super.partition.image is 'vendr'"),
        (
            '"vendor", "data"]',
            '"vendor", "vendor"]',
            "74:76: image.vbmeta.include is 'vendor', which stands there already",
        ),
        (
            'size = "16 MiB", image',
            'size = "grow", image',
            "84:3: storage.lun.partition comes after super, which grows",
        ),
        (
            'size = "64 KiB", ab',
            "size = 5000, ab",
            "95:22: storage.lun.partition.size is 5000 bytes, not a multiple of 4096",
        ),
    ],
)
def test_a_wrong_specification_is_told_by_line_and_column(
    old: str, new: str, place: str, tmp_path: Path, keys: Path
) -> None:
    assert old in SPEC
    file = workspace(tmp_path / "work", keys, text=SPEC.replace(old, new, 1))
    with pytest.raises(InputWrong) as error:
        spec.load(file)
    assert place in error.value.message and f"{file}:" in error.value.message


@pytest.mark.parametrize("kind", ["ext4", "erofs"])
def test_one_file_of_two_names_has_one_owner(kind: str, tmp_path: Path, keys: Path) -> None:
    other = "erofs" if kind == "ext4" else "ext4"
    file = workspace(tmp_path / "work", keys, text=SPEC.replace(f'kind = "{other}"', f'kind = "{kind}"'))
    os.link(tmp_path / "work/root/bin/tool", tmp_path / "work/root/tool")
    with pytest.raises(
        InputWrong, match=r"spec.toml:43:2: image.system: tool and bin/tool are one file with two owners"
    ):
        request.build(request.Request(file, tmp_path / "out"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0999 0 0 bin", "'0999 0 0 bin' is no rule"),
        ("node dev/null c 1 3 0666 0 0", "device nodes are made in ramdisks, not in file systems"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_told_by_line(tmp_path: Path, keys: Path, line: str, told: str) -> None:
    file = workspace(tmp_path / "work", keys)
    (tmp_path / "work/manifest").write_text(f"# fine\n{line}\n")
    with pytest.raises(InputWrong, match=f"manifest:2:1: {told}"):
        request.build(request.Request(file, tmp_path / "out"))


def test_a_rule_of_a_manifest_that_fits_nothing_is_told_with_its_place(tmp_path: Path, keys: Path) -> None:
    file = workspace(tmp_path / "work", keys)
    wanted = request.Request(file, tmp_path / "out")
    (tmp_path / "work/manifest").write_text("# fine\n0750 0 2000  bin/tol  # typed wrong\n")
    with pytest.raises(InputWrong, match=r"manifest:2:14: 'bin/tol' fits nothing in .*root") as error:
        request.build(wanted)
    assert error.value.hint == "bin/tool?"
    (tmp_path / "work/manifest").write_text("0750 0 2000 sbin/*\n0750 0 2000 bin/*\n")
    events: list[Event] = []
    request.build(wanted, events.append)
    notes = {(e.step, e.text.partition(": ")[2].partition(" in ")[0]) for e in events if e.level is Level.NOTE}
    assert {(n, "'sbin/*' fits nothing") for n in ("init_boot", "system", "vendor")} <= notes


def test_a_given_image_is_known_again_by_what_building_it_found(tmp_path: Path, keys: Path) -> None:
    file = workspace(tmp_path / "work", keys)
    wanted = request.Request(file, tmp_path / "out")
    request.build(wanted)
    before = contents(tmp_path / "out")
    os.utime(tmp_path / "work/data.img")
    assert request.build(wanted).made == []
    data = bytearray((tmp_path / "work/data.img").read_bytes())
    data[5000] ^= 1
    (tmp_path / "work/data.img").write_bytes(data)
    assert set(request.build(wanted).made) >= {"data", "vbmeta"}
    assert contents(tmp_path / "out") != before


ONCE = """\
schema = "quarkctl.ar1/1"
product = "once"
version = "1.0.0"
[keys.main]
signer = "main.pem"
algorithm = "SHA256_RSA2048"
[image.inside]
kind = "raw"
file = "inside"
avb = { footer = "hashtree" }
[image.twice]
kind = "raw"
file = "twice"
output = true
avb = { footer = "hashtree", fec_roots = 3 }
[image.plain]
kind = "raw"
file = "plain"
[image.super]
kind = "super"
size = "16 MiB"
sparse = SPARSE
group.main = { maximum_size = "12 MiB" }
partition = [{ name = "inside", group = "main", image = "inside" }, { name = "twice", group = "main", image = "twice" },
             { name = "plain", group = "main", image = "plain" }]
[image.pieces]
kind = "raw"
file = "pieces"
sparse = "256 KiB"
avb = { footer = "hashtree", fec_roots = 0, partition_size = "4 MiB" }
[image.boot]
kind = "raw"
file = "boot"
sparse = SPARSE
avb = { footer = "hash", partition_size = "4 MiB" }
[image.alone]
kind = "raw"
file = "alone"
[image.vbmeta]
kind = "vbmeta"
key = "main"
include = ["inside", "twice", "pieces", "boot"]
"""


@pytest.mark.parametrize("sparse_too", ["false", "true", '"1 MiB"'])
def test_every_image_is_read_once_and_every_output_written_once_and_read_back_once(
    sparse_too: str, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(keys / "main.pem", tmp_path)
    (tmp_path / "once.toml").write_text(ONCE.replace("SPARSE", sparse_too))
    noise = random.Random(9)
    inputs = ["inside", "twice", "plain", "pieces", "boot", "alone"]
    for name in inputs:
        (tmp_path / name).write_bytes(noise.randbytes(1 << 20) + bytes(1 << 18) + noise.randbytes(1 << 18))
    moved: dict[str, list[tuple[str, int, int]]] = {"read": [], "written": []}

    def watched(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(fd: int, what: Any, at: int) -> Any:
            done = call(fd, what, at)
            count = done if kind == "written" else len(done)
            moved[kind].append((Path(f"/proc/self/fd/{fd}").readlink().name, at, count))
            return done

        return counted

    monkeypatch.setattr("quarkctl.build.processors.count", lambda: 1)  # what other processes do would not be seen
    monkeypatch.setattr("os.pread", watched("read", os.pread))
    monkeypatch.setattr("os.pwrite", watched("written", os.pwrite))
    done = request.build(request.Request(tmp_path / "once.toml", tmp_path / "out"))
    monkeypatch.undo()
    for name in inputs:
        assert ranges_of(moved["read"], name) == [(0, 3 << 19)]
    written = [f for f in done.files if f.endswith((".img", *(f".img.{n}" for n in range(99)))) and "vbmeta" not in f]
    assert len(written) > 4 and ("logical/twice.img" in written) and "logical/inside.img" not in done.files
    for name in written:
        assert ranges_of(moved["written"], Path(name).name)
        # small images are read back whole, in one go that is not counted here; what nothing binds only for its digest
        read = sum(count for n, _, count in moved["read"] if n == Path(name).name)
        assert read == (3 << 19) if name == "alone.img" else read <= 28
    assert not list((tmp_path / "out").rglob("inside.img"))
    outputs = {n: (tmp_path / "out" / n).read_bytes() for n in done.files}
    assert {n: hashlib.sha256(d).hexdigest() for n, d in outputs.items()} == {
        n: f["sha256"] for n, f in done.files.items()
    }


def ranges_of(moved: list[tuple[str, int, int]], name: str) -> list[tuple[int, int]]:
    """What was moved of a file, as ranges (begin, end). Fails where they overlap."""
    out: list[tuple[int, int]] = []
    for _, at, count in sorted(m for m in moved if m[0] == name and m[2]):
        if out and at <= out[-1][1]:
            assert at == out[-1][1], f"{name}: {at} is moved twice"
            out[-1] = out[-1][0], at + count
        else:
            out.append((at, at + count))
    return out


def test_progress_is_told_and_names_every_image(tmp_path: Path, keys: Path) -> None:
    events: list[Event] = []
    request.build(request.Request(workspace(tmp_path / "work", keys), tmp_path / "out"), events.append)
    assert {"boot", "system", "super", "verify"} <= {e.step for e in events}
    assert {e.device for e in events} == {"test-board"}


@pytest.mark.parametrize(("at", "told"), [(5000, "hash tree"), (-64, "no footer"), (-60, "")])
def test_the_second_reader_notices_a_flipped_bit(built: tuple[Path, Path], at: int, told: str, tmp_path: Path) -> None:
    from quarkctl.build.ar1 import verify

    _, out = built
    raw = bytearray(joined(_expanded(out / "data.img")))
    verify.partition("data", bytes(raw), None)
    raw[at] ^= 1
    if told:
        with pytest.raises(VerificationFailed, match=told):
            verify.partition("data", bytes(raw), None)


@pytest.mark.parametrize("at", [0, 777, 4096, -1])
def test_the_second_reader_notices_a_flipped_bit_in_any_code_word(built: tuple[Path, Path], at: int) -> None:
    from quarkctl.build.ar1 import verify

    _, out = built
    raw = bytearray(joined(_expanded(out / "data.img")))
    told = json.loads((out / "ar1.json").read_text())["partitions"]["data"]
    raw[told["bytes"] + told["tree_bytes"] + at % told["fec_bytes"]] ^= 0x40
    with pytest.raises(VerificationFailed, match="codes do not fit"):
        verify.partition("data", bytes(raw), None)


def _expanded(path: Path) -> list[bytes]:
    return [sparse.Expanded(sparse.parse(path.read_bytes()))[:]]


def test_metadata_of_super_is_that_of_the_writer(built: tuple[Path, Path]) -> None:
    _, out = built
    m = lp.parse(_expanded(out / "super.img")[0], 1)
    assert [p.name for p in m.partitions] == [
        "system_a",
        "system_b",
        "vendor_a",
        "vendor_b",
        "spare_a",
        "spare_b",
    ] and m.slot_count == 2


def test_a_table_of_fewer_luns_takes_the_old_ones_away_even_after_a_kill(
    built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = built
    (out / "patch7.xml").write_bytes(b"not ours")
    one = SPEC[: SPEC.index("[[storage.lun]]\nnumber = 4")].replace(
        '{ name = "userdata"', "".join(f'{{ name = "{n}", size = "1 MiB", image = "{n}" }}, ' for n in
                                      ("boot", "init_boot", "vendor_boot", "dtbo")) + '{ name = "userdata"')  # fmt: skip
    file.write_text(one.replace("number = 0", "number = 2"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quarkctl.build.ar1.cache.Cache.keep", killed)
    with pytest.raises(KeyboardInterrupt):
        request.build(request.Request(file, out))
    assert not (out / "ar1.json").exists()
    monkeypatch.undo()
    file.write_text(one)
    request.build(request.Request(file, out))
    assert sorted(p.name for p in out.glob("*.xml")) == ["patch0.xml", "patch7.xml", "rawprogram0.xml"]
    assert sorted(p.name for p in out.glob("*.bin")) == ["gpt_backup0.bin", "gpt_main0.bin"]


def test_a_change_of_the_agent_is_seen(ar1_images: Callable[[str], Path]) -> None:
    record = json.loads((ar1_images("s1-virtual") / "ar1.json").read_text())
    assert {str(p) for p in agent.sources()} <= set(record["cache"]["inputs"])


def test_a_bundle_takes_the_images_where_the_build_leaves_them(
    ar1_images: Callable[[str], Path], tmp_path: Path, quarkctl: Quarkctl
) -> None:
    images = ar1_images("s1-virtual")
    recipe = tmp_path / "release.toml"
    recipe.write_text(
        'product = "s1-virtual"\nversion = "1"\n[ar1]\nversion = "1.0.0"\n'
        '[[ar1.image]]\ntarget = "vbmeta"\nfile = "vbmeta.img"\n'
        '[[ar1.image]]\ntarget = "system"\nfile = "logical/system.img"\n'
    )
    done = quarkctl("build", "bundle", recipe, "--builds", images, "--out", tmp_path / "r.qfw", "--json")
    assert done.code == 0, done.err
    with zipfile.ZipFile(tmp_path / "r.qfw") as bundle:
        assert bundle.read("ar1/system.img") == (images / "logical/system.img").read_bytes()
    super_image = second_reader.super_image((images / "super.img").read_bytes(), 0, backup=False)
    partitions = super_image["partitions"]
    assert isinstance(partitions, dict)
    assert partitions["system_a"][2] == (images / "logical/system.img").read_bytes()
