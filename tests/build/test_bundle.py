"""``build bundle``, ``bundle ...`` and ``keys ...``: what a release engineer does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from quarkctl import boards, state
from quarkctl.boards import trust
from quarkctl.build import bundle, keys, sign
from quarkctl.build.bundle import change, seal, write
from quarkctl.errors import InputWrong, QuarkError
from quarkctl.formats import rawprogram, segments, sparse
from quarkctl.formats.rawprogram import Program, Sector
from quarkctl.formats.sparse import Chunk, Kind, Sparse
from quarkctl.formats.trust import Untrusted
from tests import bundles
from tests.conftest import Quarkctl


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test trusts only what it installed itself."""
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path / "state"))
    return state.root()


def check(path: Path) -> change.Opened:
    with change.opened(path) as one:
        change.verify(one)
    return one


def test_two_builds_in_two_folders_give_the_same_bytes(tmp_path: Path) -> None:
    content = {"boot": b"b" * 5000, "system": bytes(3 << 20)}
    one, two = (bundles.make(tmp_path / name, ar1=content).path.read_bytes() for name in "ab")
    assert one == two
    assert check(tmp_path / "a" / "release.qfw").signed[0].development


def test_the_time_in_the_bundle_is_that_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = bundles.make(tmp_path)
    assert made.manifest.source_date_epoch == 1700000000
    assert b"2023-11-14T22:13:20Z" in made.path.read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(QuarkError, match="SOURCE_DATE_EPOCH"):
        bundles.make(tmp_path)


def test_a_signature_that_is_shorter_than_the_room_for_it_moves_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DER leaves leading zeros out: one ECDSA signature in some hundred is shorter by more than base64 hides."""
    for extra in (9, -32):  # room for more, then for less than is needed

        def reserved(self: seal.Seal, signers: Sequence[sign.Signer], extra: int = extra) -> seal.Seal:
            return self._with(signers[0], bytes(64 + extra), bytes(64))

        monkeypatch.setattr(seal.Seal, "reserved", reserved)
        made = bundles.make(tmp_path, ar1={"boot": b"b" * (3 * write.BLOCK_BYTES // 2)})
        monkeypatch.undo()
        monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path / "state"))
        check(made.path)


def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    before = made.path.read_bytes()
    (tmp_path / "rtos.bin").write_bytes(b"no image")
    with pytest.raises(InputWrong, match="not an MCUboot image"):
        bundle.build(bundle.Request(tmp_path / "release.toml", tmp_path, made.path, [sign.load(bundles.DEVELOPMENT)]))
    assert made.path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("", "product is missing"),
        ('product="s1-virtual"\nversion="1"', "names no image"),
        ('product="s1-virtual"\nversion="1"\n[rtos]\nimage="../rtos.bin"', "no file|no name"),
        ("product = [", "release.toml"),
        ('product="s1-virtual"\nversion="1"\n[rtos]\nimage="gone.bin"', "there is no file"),
        ('product="g1-virtual"\nversion="1"\n[rtos]\nimage="rtos.bin"', "is made for s1-virtual"),
        ('product="s1-virtual"\nversion="1"\n[rtos]\nimage="rtos.bin"\ncolour="red"', "colour"),
        ('product="s1-virtual"\nversion="1"\n[rtos]\nimage="rtos.bin"\nneeds={gpu="1.0"}', "needs"),
        ('product="s1-virtual"\nversion="1"\n[rtos]\nimage="rtos.bin"\nneeds={ar1="new"}', "is not a version"),
        ('product="s1-virtual"\nversion="1"\n[ar1]\nversion="1.0.0"', "names no image"),
        ('product="s1-virtual"\nversion="a b"\n[rtos]\nimage="rtos.bin"', "is no version"),
    ],
)
def test_a_recipe_that_is_wrong_is_named(tmp_path: Path, recipe: str, told: str) -> None:
    (tmp_path / "rtos.bin").write_bytes(bundles.rtos_image())
    (tmp_path / "release.toml").write_text(recipe)
    with pytest.raises(InputWrong, match=told):
        bundle.build(bundle.Request(tmp_path / "release.toml", tmp_path, tmp_path / "r.qfw"))
    assert not (tmp_path / "r.qfw").exists()


def test_signing_elsewhere_gives_what_signing_here_gives(tmp_path: Path, quarkctl: Quarkctl) -> None:
    here = bundles.make(tmp_path / "here").path
    there = bundles.make(tmp_path / "there", keys=()).path
    with pytest.raises(Untrusted, match="not signed"):
        check(there)
    public = tmp_path / "public.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", bundles.DEVELOPMENT, "-pubout", "-out", public], check=True, capture_output=True
    )
    wanted = quarkctl("bundle", "digest", there, "--key", public, "--out", "requests", "--json")
    assert wanted.json["wanted"] == ["s1-virtual-r-1.1.0-manifest", "s1-virtual-r-1.1.0-provenance"]
    early = quarkctl("bundle", "attach", there, "--key", public, "--from", "requests")
    assert early.code == 6 and "2 signatures are wanted" in early.err
    for request in (quarkctl.folder / "requests").glob("*.tbs"):  # the signing room
        subprocess.run(
            ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", bundles.DEVELOPMENT, "-in", request,
             "-out", request.with_suffix(".sig")], check=True,
        )  # fmt: skip
    done = quarkctl("bundle", "attach", there, "--key", public, "--from", "requests")
    assert done.code == 0, done.err
    assert there.read_bytes() == here.read_bytes()


def test_a_damaged_bundle_is_never_signed(tmp_path: Path) -> None:
    path = bundles.make(tmp_path).path
    data = bytearray(path.read_bytes())
    data[-500] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputWrong):
        change.sign(path, tmp_path / "out.qfw", [sign.load(bundles.DEVELOPMENT)])
    assert not (tmp_path / "out.qfw").exists() and path.read_bytes() == data


def test_members_are_taken_out_whole_or_not_at_all(tmp_path: Path, quarkctl: Quarkctl) -> None:
    path = bundles.make(tmp_path, ar1={"boot": b"b" * 100}).path
    done = quarkctl("bundle", "extract", path, "ar1/boot.img", "--out", "x", "--json")
    assert done.json["written"] == ["x/ar1/boot.img"]
    assert (quarkctl.folder / "x/ar1/boot.img").read_bytes() == b"b" * 100
    assert "exists already" in quarkctl("bundle", "extract", path, "--out", "x").err
    assert "there is no member" in quarkctl("bundle", "extract", path, "nothing", "--out", "y").err
    data = path.read_bytes()
    at = data.index(b"b" * 100)
    path.write_bytes(data[:at] + b"c" + data[at + 1 :])
    bad = quarkctl("bundle", "extract", path, "--out", "z")
    assert bad.code == 6 and "not what was signed" in bad.err
    assert not (quarkctl.folder / "z/ar1/boot.img").exists()


def test_show_diff_and_verify_tell_the_truth(tmp_path: Path, quarkctl: Quarkctl) -> None:
    one = bundles.make(tmp_path, "1.1.0").path
    two = bundles.make(tmp_path, "1.2.0", name="two.qfw").path
    changes = {c["what"]: (c["old"], c["new"]) for c in quarkctl("bundle", "diff", one, two, "--json").json["changes"]}
    assert changes["rtos version"] == ("1.1.0", "1.2.0") and "product" not in changes
    assert "1.2.0" in quarkctl("bundle", "diff", one, two).out
    assert quarkctl("bundle", "diff", one, one).out == "the same content\n"
    shown = quarkctl("bundle", "show", one, "--json").json
    assert shown["trusted"] and shown["chips"][0]["version"] == "1.1.0"
    assert "signed by development" in quarkctl("bundle", "verify", one).out
    inspected = quarkctl("inspect", one, "--json").json["files"][0]
    assert (inspected["kind"], inspected["trusted"]) == ("release bundle", True)
    other = bundles.make(tmp_path, "1.1.0", keys=(bundles.key_file(tmp_path / "k.pem"),), name="other.qfw").path
    shown_other = quarkctl("bundle", "show", other)
    assert shown_other.code == 0 and "not to be trusted: signed with key" in shown_other.err
    assert quarkctl("bundle", "verify", other).code == 6
    assert quarkctl("bundle", "verify", tmp_path / "rtos.bin").code == 6
    assert quarkctl("bundle", "verify", tmp_path / "gone.qfw").code == 6


# --- the AR1's storage -----------------------------------------------------------------------------------------------------

SECTOR = 4096


def storage_builds(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """What `build ar1` leaves: a table, a raw and a sparse image, XML. Returns the recipe and what is to be where."""
    folder.mkdir(exist_ok=True)
    system = b"\x11" * 3 * SECTOR + bytes(5 * SECTOR) + os.urandom(2_000_000 // SECTOR * SECTOR) + bytes(SECTOR)
    holes = Chunk(Kind.DONT_CARE, 0, 5)
    parsed = Sparse(system, SECTOR, len(system) // SECTOR, (
        Chunk(Kind.FILL, 0, 3, fill=0x11111111), holes._replace(first_block=3),
        Chunk(Kind.RAW, 8, len(system) // SECTOR - 9, 8 * SECTOR), Chunk(Kind.FILL, len(system) // SECTOR - 1, 1),
    ))  # fmt: skip
    content = {"gpt_main0.bin": os.urandom(6 * SECTOR), "boot.img": os.urandom(10_000),
               "system.img": segments.joined(sparse.build(parsed)), "prog.elf": b"\x7fELF programmer"}  # fmt: skip
    for name, data in content.items():
        (folder / name).write_bytes(data)
    programs = [
        Program("gpt_main0.bin", "PrimaryGPT", 0, Sector(0), 6, SECTOR), Program("", "misc", 0, Sector(6), 1, SECTOR),
        Program("boot.img", "boot_a", 0, Sector(8), 16, SECTOR), Program("boot.img", "boot_b", 0, Sector(24), 16, SECTOR),
        Program("system.img", "system_a", 0, Sector(100), 2000, SECTOR, sparse=True),
        Program("system.img", "system_b", 0, Sector(3000), 2000, SECTOR, sparse=True),
    ]  # fmt: skip
    (folder / "rawprogram0.xml").write_bytes(rawprogram.build_programs(programs))
    (folder / "patch0.xml").write_bytes(rawprogram.build_patches([]))
    (folder / "rtos.bin").write_bytes(bundles.rtos_image())
    recipe = folder / "release.toml"
    recipe.write_text(
        'product = "s1-virtual"\nversion = "1"\n[rtos]\nimage = "rtos.bin"\n[ar1]\nversion = "1.0.1"\n'
        'rawprogram = ["rawprogram0.xml"]\npatch = ["patch0.xml"]\nprogrammer = "prog.elf"\nmemory = "ufs"\n'
    )
    return recipe, {**content, "system": system}


def by_zipfile(path: Path) -> Callable[[str], bytes]:
    return zipfile.ZipFile(path).read


def by_libzip(path: Path) -> Callable[[str], bytes]:
    """libzip is what qdl reads ZIP files with; here it also checks each number that stands in two places (``-c``)."""

    def read(name: str) -> bytes:
        def run(*command: str) -> bytes:
            return subprocess.run(["ziptool", "-c", path, *command], capture_output=True, check=True).stdout

        index = re.fullmatch(rb"name '.*' using flags '0' found at index (\d+)\n", run("name_locate", name, "0"))
        assert index, run("name_locate", name, "0")
        return run("cat", index[1].decode())

    return read


@pytest.mark.parametrize("reader", [by_zipfile, by_libzip])
def test_a_bundle_is_a_flashmap_that_others_flash(
    tmp_path: Path, reader: Callable[[Path], Callable[[str], bytes]]
) -> None:
    """Flashed by a stranger's ZIP reader and an XML parser alone, as qdl's ``flashmap.c`` reads: versions, one product, one
    layout, one programmer; the kind of an XML file by its root; no sparse files, no seeking, names as written."""
    recipe, content = storage_builds(tmp_path)
    path = bundle.build(bundle.Request(recipe, tmp_path, tmp_path / "r.qfw", [sign.load(bundles.DEVELOPMENT)])).path
    one = check(path)
    assert [(c.target, c.format) for c in one.manifest.components] == [
        ("slot", "mcuboot"), ("boot", "raw"), ("system", "sparse")
    ]  # fmt: skip
    disk = bytearray(b"\xee" * 6000 * SECTOR)
    read = reader(path)
    flashmap = json.loads(read("flashmap.json"))
    layout = flashmap["products"][0]["layouts"][0]
    assert (flashmap["version"], len(flashmap["products"]), len(layout["programmer"])) == ("1.1.0", 1, 1)
    assert len(flashmap["products"][0]["layouts"]) == 1
    assert read(layout["programmer"][0]) == content["prog.elf"]
    for entry in layout["programmable"]:
        assert entry["memory"] == "ufs" and isinstance(entry["slot"], int)
        for name in entry["files"]:
            root = ElementTree.fromstring(read(name))
            assert root.tag == "patches" or (root.tag == "data" and root.find("program") is not None)
            for program in root.iter("program"):
                get = program.attrib
                assert get["sparse"] == "false" and get["file_sector_offset"] == "0"
                data = read(get["filename"])
                at = int(get["start_sector"]) * int(get["SECTOR_SIZE_IN_BYTES"])
                assert len(data) <= int(get["num_partition_sectors"]) * int(get["SECTOR_SIZE_IN_BYTES"])
                disk[at : at + len(data)] = data
    assert disk[: 6 * SECTOR] == content["gpt_main0.bin"]
    for at in (8, 24):
        assert disk[at * SECTOR :][:10_000] == content["boot.img"]
    hole = slice(3 * SECTOR, 8 * SECTOR)
    for at in (100, 3000):
        written = disk[at * SECTOR :][: len(content["system"])]
        assert written[hole] == b"\xee" * 5 * SECTOR  # what the image does not care about is left alone
        written[hole] = content["system"][hole]
        assert written == content["system"]


def test_images_for_updates_and_for_emergency_download_share_what_both_name(tmp_path: Path) -> None:
    recipe, content = storage_builds(tmp_path)
    (tmp_path / "vbmeta.img").write_bytes(bundles.vbmeta())
    with recipe.open("a") as file:
        for target in ("boot", "vbmeta"):
            file.write(f'[[ar1.image]]\ntarget = "{target}"\nfile = "{target}.img"\n')
    path = bundle.build(bundle.Request(recipe, tmp_path, tmp_path / "r.qfw", [sign.load(bundles.DEVELOPMENT)])).path
    manifest = check(path).manifest
    assert [c.target for c in manifest.components] == ["slot", "vbmeta", "boot"]
    with zipfile.ZipFile(path) as members:
        names = members.namelist()
        assert names[-4:] == ["vbmeta.img", "boot.img", "system.img.e0000", "system.img.e0001"]
        assert members.read("boot.img") == content["boot.img"]


def test_what_xml_names_lies_beside_it_and_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """As `build ar1` leaves it: a folder of its own beside the microcontroller's image."""
    flat, _ = storage_builds(tmp_path / "flat")
    recipe, _ = storage_builds(tmp_path / "deep")
    (tmp_path / "deep" / "ar1").mkdir()
    for name in ("gpt_main0.bin", "boot.img", "system.img", "rawprogram0.xml", "patch0.xml", "prog.elf"):
        shutil.copy(tmp_path / "flat" / name, tmp_path / "deep" / "ar1" / name)
        (tmp_path / "deep" / name).unlink()
    text = flat.read_text()
    for name in ("rawprogram0.xml", "patch0.xml", "prog.elf"):
        text = text.replace(name, f"ar1/{name}")
    recipe.write_text(text)
    members = []
    for path in (flat, recipe):
        made = bundle.build(bundle.Request(path, path.parent, path.parent / "r.qfw"))
        members.append([(m.name, m.sha256) for m in made.manifest.members])
    assert members[0] == members[1]
    (tmp_path / "deep" / "other").mkdir()
    (tmp_path / "deep" / "other" / "prog.elf").write_bytes(b"another")
    recipe.write_text(text.replace('patch = ["ar1/patch0.xml"]', 'patch = ["other/prog.elf"]'))
    with pytest.raises(InputWrong, match=r"two different files are called prog\.elf"):
        bundle.build(bundle.Request(recipe, recipe.parent, tmp_path / "no.qfw"))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (bundles.vbmeta("1.0.2"), "ar1.version is 1.0.1, that of vbmeta is 1.0.2"),
        (bundles.vbmeta(rollback_index=3), "ar1.rollback_index is 0, that of vbmeta is 3"),
        (b"AVB1" + bytes(500), "vbmeta: "),
    ],
)
def test_a_recipe_that_contradicts_its_vbmeta_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    recipe, _ = storage_builds(tmp_path)
    (tmp_path / "vbmeta.img").write_bytes(data)
    with recipe.open("a") as file:
        file.write('[[ar1.image]]\ntarget = "vbmeta"\nfile = "vbmeta.img"\n')
    with pytest.raises(InputWrong, match=told):
        bundle.build(bundle.Request(recipe, tmp_path, tmp_path / "r.qfw"))


def test_a_qdl_that_knows_flashmaps_takes_the_bundle(tmp_path: Path) -> None:
    qdl = os.environ.get("QUARKCTL_QDL")
    if not qdl:
        pytest.skip("QUARKCTL_QDL names no qdl of version 2 or newer: Debian's and PyPI's cannot read flashmaps")
    recipe, _ = storage_builds(tmp_path)
    path = bundle.build(bundle.Request(recipe, tmp_path, tmp_path / "r.zip", [sign.load(bundles.DEVELOPMENT)])).path
    done = subprocess.run([qdl, "--dry-run", "flash", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("change_", "told"),
    [
        (('rawprogram = ["rawprogram0.xml"]\n', ""), "names no image"),
        (('programmer = "prog.elf"', ""), "programmer"),
        (("patch0.xml", "gone.xml"), "there is no file"),
        (("rawprogram0.xml", "boot.img"), "boot.img|XML|rawprogram"),
    ],
)
def test_a_storage_that_is_wrong_is_named(tmp_path: Path, change_: tuple[str, str], told: str) -> None:
    recipe, _ = storage_builds(tmp_path)
    recipe.write_text(recipe.read_text().replace(*change_))
    with pytest.raises(InputWrong, match=told):
        bundle.build(bundle.Request(recipe, tmp_path, tmp_path / "r.qfw"))


def test_a_sparse_image_that_is_damaged_or_all_holes_is_refused(tmp_path: Path) -> None:
    recipe, content = storage_builds(tmp_path)
    for data in (content["system.img"][:-1], segments.joined(sparse.build(Sparse(b"", SECTOR, 5, (
        Chunk(Kind.DONT_CARE, 0, 5),)))), b""):  # fmt: skip
        (tmp_path / "system.img").write_bytes(data)
        with pytest.raises(InputWrong, match="system"):
            bundle.build(bundle.Request(recipe, tmp_path, tmp_path / "r.qfw"))


# --- keys and trust -----------------------------------------------------------------------------------------------------


def handed_over(tmp_path: Path, *signers: Path, product: str = "s1-virtual", **what: object) -> bytes:
    _, data = keys.rotate(product, [sign.load(k) for k in signers], **what)  # type: ignore[arg-type]
    return data


def added(path: Path) -> keys.TrustedKey:
    return keys.trusted_key(path.with_name(path.name + ".pub"))


def test_keys_are_handed_over_by_those_who_hold_the_old_ones(tmp_path: Path) -> None:
    new = bundles.key_file(tmp_path / "new.pem")
    old = bundles.make(tmp_path, keys=(bundles.DEVELOPMENT,), name="old.qfw").path
    by_new = bundles.make(tmp_path, keys=(new,), name="new.qfw").path
    with pytest.raises(Untrusted, match="not trusted for s1-virtual"):
        check(by_new)
    for signers in ((new,), (bundles.DEVELOPMENT,)):  # each alone: nobody consented, or nobody holds the new key
        with pytest.raises(Untrusted):
            trust.install(handed_over(tmp_path, *signers, add=[added(new)], remove=["development"]))
    document = handed_over(tmp_path, bundles.DEVELOPMENT, new, add=[added(new)], revoke=["development"])
    trust.install(document)
    check(by_new)
    with pytest.raises(Untrusted, match="which is revoked"):
        check(old)
    with pytest.raises(Untrusted, match="cannot follow"):
        trust.install(document)
    with pytest.raises(Untrusted, match="revoked"):
        change.sign(old, tmp_path / "x.qfw", [sign.load(bundles.DEVELOPMENT)])
        check(tmp_path / "x.qfw")


def test_a_threshold_of_two_takes_two(tmp_path: Path) -> None:
    second = bundles.key_file(tmp_path / "second.pem", "ecdsa-p256")
    trust.install(handed_over(tmp_path, bundles.DEVELOPMENT, second, add=[added(second)], threshold=2))
    path = bundles.make(tmp_path).path
    with pytest.raises(Untrusted, match="1 of the 2 keys"):
        check(path)
    change.sign(path, path, [sign.load(second)])
    assert len(check(path).signed) == 2
    with pytest.raises(InputWrong, match="cannot be met"):
        handed_over(tmp_path, bundles.DEVELOPMENT, threshold=3)


def test_trust_that_expired_says_what_to_do_and_can_still_hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = trust.today()
    trust.install(handed_over(tmp_path, bundles.DEVELOPMENT, expires=today))
    path = bundles.make(tmp_path).path
    check(path)
    monkeypatch.setattr(trust, "today", lambda: today + timedelta(days=1))
    with pytest.raises(Untrusted, match="valid until"):
        check(path)
    trust.install(handed_over(tmp_path, bundles.DEVELOPMENT))
    check(path)
    with pytest.raises(Untrusted, match="valid until"):
        trust.install(handed_over(tmp_path, bundles.DEVELOPMENT, expires=date(2020, 1, 1)))


def test_a_document_changed_in_the_store_is_found(tmp_path: Path, store: Path) -> None:
    trust.install(handed_over(tmp_path, bundles.DEVELOPMENT))
    document = store / "trust" / "s1-virtual" / "2.json"
    data = document.read_bytes()
    document.write_bytes(data.replace(b'"sig":"A', b'"sig":"B').replace(b'"sig":"E', b'"sig":"F'))
    for at in range(0, len(data), 7):
        document.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(InputWrong):
            trust.load("s1-virtual")


def test_development_keys_do_not_reach_products_for_sale(tmp_path: Path, quarkctl: Quarkctl) -> None:
    assert trust.is_production("s1") and not trust.is_production("s1-virtual")
    image = tmp_path / "rtos.bin"
    image.write_bytes(bundles.rtos_image(board="s1"))
    recipe = tmp_path / "s1.toml"
    recipe.write_text('product = "s1"\nversion = "1"\n[rtos]\nimage = "rtos.bin"\n')
    assert quarkctl("keys", "new", "trial.pem", "--development").code == 0
    assert quarkctl("keys", "new", "real.pem").code == 0
    for key in (bundles.DEVELOPMENT, "trial.pem"):
        done = quarkctl("build", "bundle", recipe, "--key", key)
        assert done.code == 6 and "is a development key" in done.err
    by_image = quarkctl("build", "bundle", recipe, "--key", "real.pem")
    assert by_image.code == 6 and "the image of the microcontroller is signed with a development key" in by_image.err
    marked = quarkctl("keys", "rotate", "--product", "s1", "--add", "trial.pem.pub", "--key", "real.pem")
    assert marked.code == 6 and "is a development key" in marked.err


def test_the_first_keys_of_a_product_are_pinned_with_a_yes(tmp_path: Path, quarkctl: Quarkctl) -> None:
    quarkctl("keys", "new", "k.pem")
    made = quarkctl("keys", "rotate", "--product", "s1", "--add", "k.pem.pub=release", "--key", "k.pem", "-o", "t.json")
    assert made.code == 0, made.err
    refused = quarkctl("keys", "trust", "t.json")
    assert refused.code == 2 and "--yes" in refused.err
    assert quarkctl("keys", "show", "--product", "s1").code == 6
    assert quarkctl("keys", "trust", "t.json", "--yes").code == 0
    shown = quarkctl("keys", "show", "--product", "s1", "--json").json["products"][0]
    assert (shown["number"], shown["keys"][0]["name"]) == (1, "release")
    other = quarkctl("keys", "new", "other.pem")
    assert other.code == 0
    # A second document from the first person, the signature of the second added elsewhere.
    partly = quarkctl(
        "keys",
        "rotate",
        "--product",
        "s1",
        "--add",
        "other.pem.pub",
        "--remove",
        "release",
        "--key",
        "k.pem",
        "-o",
        "2.json",
    )
    assert partly.code == 0, partly.err
    assert quarkctl("keys", "trust", "2.json").code == 6
    assert quarkctl("keys", "rotate", "--document", "2.json", "--key", "other.pem").code == 0
    assert quarkctl("keys", "trust", "2.json").code == 0
    assert "document 2 of s1" in quarkctl("keys", "show", "2.json").out


def test_keys_are_private_and_never_replaced(quarkctl: Quarkctl) -> None:
    made = quarkctl("keys", "new", "k.pem", "--kind", "ecdsa-p256", "--json")
    assert (quarkctl.folder / "k.pem").stat().st_mode & 0o777 == 0o600
    again = quarkctl("keys", "new", "k.pem")
    assert again.code == 2 and "never replaced" in again.err
    shown = quarkctl("keys", "show", "k.pem", "k.pem.pub", "--json").json["keys"]
    assert {k["key_id"] for k in shown} == {made.json["key_id"]}
    assert quarkctl("keys", "new", "x.pem", "--kind", "rsa").code == 2


def test_every_board_pins_keys_or_is_for_sale() -> None:
    for name in boards.names():
        assert name == "esp32-devkit" or trust.is_production(name) or trust.load(name).keys
