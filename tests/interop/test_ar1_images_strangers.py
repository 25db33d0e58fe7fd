"""What `build ar1` leaves for emergency download is flashed by an unmodified qdl, and fdisk reads the tables afterwards."""

from __future__ import annotations

import subprocess
from pathlib import Path

from quarkctl.build.ar1 import request
from tests.ar1 import MIB, noise
from tests.conftest import ROOT
from tests.formats import second_reader
from tests.interop.test_ar1_strangers import plugged, run  # noqa: F401  (a fixture)

SPEC = f"""\
schema = "quarkctl.ar1/1"
product = "qdl-test"
version = "1.0.0"

[keys.main]
signer = "{ROOT}/firmware/ar1/keys/development.pem"

[kernel]
image = "Image"

[image.boot]
kind = "boot"
kernel = "kernel"
avb = {{ footer = "hash", partition_size = "1 MiB" }}

[image.system]
kind = "raw"
file = "system.raw"
avb = {{ footer = "hashtree", partition_size = "4 MiB" }}

[image.product]
kind = "raw"
file = "product.raw"
output = true
avb = {{ footer = "hashtree" }}

[image.super]
kind = "super"
size = "8 MiB"
group.main = {{ maximum_size = "6 MiB" }}
partition = [{{ name = "product", group = "main", image = "product" }}]

[image.vbmeta]
kind = "vbmeta"
key = "main"
include = ["boot", "system", "product"]

[storage]
sector_size = 4096

[[storage.lun]]
number = 0
size = "64 MiB"
partition = [
  {{ name = "system", size = "4 MiB", ab = true, image = "system" }},
  {{ name = "super", size = "8 MiB", image = "super" }},
  {{ name = "userdata", size = "grow" }},
]

[[storage.lun]]
number = 1
partition = [
  {{ name = "boot", size = "1 MiB", ab = true, image = "boot" }},
  {{ name = "vbmeta", size = "64 KiB", ab = true, image = "vbmeta" }},
  {{ name = "log", size = "grow" }},
]
"""


def test_qdl_flashes_what_was_built_and_the_last_partition_grows(plugged: object, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "spec.toml").write_text(SPEC)
    (tmp_path / "Image").write_bytes(noise(300_000))
    (tmp_path / "system.raw").write_bytes(noise(2 * MIB, 2))
    (tmp_path / "product.raw").write_bytes(bytes(MIB) + noise(MIB, 3))
    out = tmp_path / "out"
    request.build(request.Request(tmp_path / "spec.toml", out))
    b, env = plugged("edl")  # type: ignore[operator]
    xml = [f"{kind}{lun}.xml" for lun in (0, 1) for kind in ("rawprogram", "patch")]
    run("qdl", "--storage", "ufs", b.programmer, *xml, env=env, cwd=out)
    for image in ("boot", "system", "vbmeta"):
        wanted = (out / f"{image}.img").read_bytes()
        assert b.stored(f"{image}_a", len(wanted)) == wanted
    held = b.stored("super", 8 * MIB)
    partitions = second_reader.super_image(held, 0, backup=False)["partitions"]
    assert isinstance(partitions, dict)
    assert partitions["product_a"][2] == (out / "logical/product.img").read_bytes()
    for lun, last in ((0, "userdata"), (1, "log")):
        size = b.ar1.settings.lun_bytes[lun]
        (tmp_path / f"lun{lun}").write_bytes(b.ar1.storage.read(lun, 0, size))
        done = subprocess.run(
            ["fdisk", "-b", "4096", "-l", "-o", "end,name", tmp_path / f"lun{lun}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert not done.stderr, "fdisk finds the table's copies damaged or of another size"
        assert [f"{size // 4096 - 6}", last] == done.stdout.split()[-2:]
