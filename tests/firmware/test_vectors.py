"""Every recorded vector means the same to the firmware's C, on this computer and on its own processor."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quarkctl.build import rtos
from quarkctl.formats.schema import Field
from quarkctl.sim import qemu
from tests.conftest import BUILD, RTOS, target_program
from tests.firmware.host import FLAGS
from tests.firmware.test_target import _wait_for
from tests.formats import frame_vectors
from tests.formats.test_vectors import VECTORS, schema_of


def elements(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Members of a C struct and their values."""
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from elements(f"{name}[{i}]", inner)
    else:
        yield name, value


def c_bytes(raw: bytes) -> str:
    return ",".join(f"0x{b:02x}" for b in raw)


def c_number(value: int) -> str:
    if value == -(2**63):
        return f"({value + 1}LL - 1)"
    return f"{value}{'ULL' if value > 2**63 - 1 else 'LL'}"


def c_members(field: Field, value: Any) -> Iterator[tuple[str, str]]:
    """(C condition, what it is about): one a member, texts as a whole."""
    if field.type == "char":
        text = value.encode().ljust(field.count, b"\0")
        yield f"memcmp(m.{field.name}, (const uint8_t[]){{{c_bytes(text)}}}, {field.count}) == 0", field.name
        return
    for member, number in elements(field.name, value):
        yield f"m.{member} == {c_number(number)}", member


def header() -> str:
    """qk_vectors.h: all vectors as C; fields are compared after reading the bytes, and written back to the same bytes."""
    out, rows = [], []
    for k, v in enumerate(frame_vectors.load()):
        payload, wire = bytes.fromhex(v["payload"]), bytes.fromhex(v["wire"])
        kind = schema_of(v["message"]).messages[v["message"]].type
        out.append(f"static const uint8_t payload{k}[] = {{{c_bytes(payload)}}}, wire{k}[] = {{{c_bytes(wire)}}};")
        rows.append(
            f"{{0x{kind:02x}, {v['source']}, {v['seq']}, {v['time_us']}ULL, "
            f"payload{k}, sizeof payload{k}, wire{k}, sizeof wire{k}}},"
        )
    out += [
        f"#define FRAME_COUNT {len(rows)}u",
        "static const struct frame_vector frames[FRAME_COUNT] = {",
        *rows,
        "};",
    ]
    out += ["static const char *fields_agree(void)", "{"]
    for v in VECTORS:
        m = schema_of(v["message"]).messages[v["message"]]
        out.append(f"{{ static const uint8_t raw[] = {{{c_bytes(bytes.fromhex(v['hex']))}}};")
        out.append(f"struct qk_wire_{m.name} m, n; memset(&n, 0, sizeof n);")
        out += [f'if (sizeof raw != sizeof m) return "{m.name}: size";', "memcpy(&m, raw, sizeof m);"]
        for f in m.fields:
            for condition, name in c_members(f, v["fields"][f.name]):
                out.append(f'if (!({condition})) return "{m.name}.{name}";')
            if f.type == "char":
                out.append(f"memcpy(n.{f.name}, m.{f.name}, {f.count});")
            else:
                out += [f"n.{name} = {c_number(number)};" for name, number in elements(f.name, v["fields"][f.name])]
        out.append(f'if (memcmp(&n, raw, sizeof n) != 0) return "{m.name}: written"; }}')
    return "\n".join([*out, "return NULL;", "}", ""])


def test_the_firmware_reads_and_writes_every_vector_on_this_computer(tmp_path: Path) -> None:
    (tmp_path / "qk_vectors.h").write_text(header())
    sources = ["tests/vectors.c", "core/frame.c", "core/crc.c"]
    includes = [f"-I{RTOS / f}" for f in ("core", "wire")] + [f"-I{tmp_path}"]
    subprocess.run(["gcc", *FLAGS, *includes, *sources, "-o", tmp_path / "vectors"], cwd=RTOS, check=True)
    done = subprocess.run([tmp_path / "vectors"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "DONE\n"), done.stdout + done.stderr


@pytest.mark.qemu
def test_the_firmware_reads_and_writes_every_vector_on_its_own_processor(
    firmware: Callable[..., rtos.Built], tmp_path: Path
) -> None:
    firmware("1.0.0")
    (BUILD / "s1-virtual" / ".work-s1-virtual" / "generated" / "qk_vectors.h").write_text(header())
    (tmp_path / "boot.elf").write_bytes(target_program("vectors.elf"))
    with (tmp_path / "memory.bin").open("wb") as memory:
        memory.truncate(qemu.MEMORY_BYTES)
    running = subprocess.Popen(
        qemu.command(icount=True),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        text = _wait_for(tmp_path / "firmware.log", running)
    finally:
        running.kill()
        running.communicate()
    assert "DONE" in text and "FAIL" not in text, text
