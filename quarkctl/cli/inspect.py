"""quarkctl inspect"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from quarkctl import boards
from quarkctl.cli import show
from quarkctl.cli.options import Json, examples
from quarkctl.errors import InputWrong
from quarkctl.formats import mcuboot_image, recording
from quarkctl.formats.signature import PublicKey

app = typer.Typer(add_completion=False)


@app.command(epilog=examples("quarkctl inspect rtos-1.1.0.bin", "quarkctl inspect swap.qrec --json"))
def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Images, recordings, crash reports.")],
    elf: Annotated[
        Path | None, typer.Option("--elf", metavar="FILE", help="Program of a crash report: names file and line.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Explain files: what they are, whether they are whole, whether they are signed."""
    described = [{"file": str(f), **describe(f, elf)} for f in files]
    if as_json:
        show.document("quarkctl.inspect/1", {"files": described})
        return
    for entry in described:
        _print_tree(entry)


def describe(path: Path, elf: Path | None = None) -> dict[str, Any]:
    """What a file is. Raises InputWrong for a kind that is not known."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
    try:
        if mcuboot_image.looks_like(data):
            return _image(data)
        if recording.looks_like(data):
            return _recording(path)
        if data.lstrip()[:1] == b"{":
            return _json(data, elf)
    except InputWrong as error:
        raise InputWrong(f"{path}: {error.message}", error.hint) from error
    raise InputWrong(
        f"{path} is no file that quarkctl knows", hint="it reads MCUboot images, recordings and crash reports"
    )


def _image(data: bytes) -> dict[str, Any]:
    image = mcuboot_image.parse(data)
    signature, trusted = "unknown key", ""
    for name in boards.names():
        for fact, value in boards.load(name).facts.items():
            if not fact.startswith("rtos.key."):
                continue
            key = PublicKey.from_raw(bytes.fromhex(value.value))
            if key.id == image.key_hash:
                signature = mcuboot_image.verify(image, key) or "verified"
                trusted = fact.removeprefix("rtos.key.")
    return {
        "kind": "MCUboot image",
        "version": str(image.version),
        "board": image.board or None,
        "security_counter": image.security_counter,
        "load_address": f"{image.load_address:#010x}",
        "header_bytes": image.header_bytes,
        "payload_bytes": image.payload_bytes,
        "trailing_bytes": len(data) - image.size_bytes,
        "image_hash": image.digest.hex(),
        "hash": "matches" if image.hash_ok else "does not match the content",
        "signature": signature,
        "key": trusted or image.key_hash.hex()[:16],
        "tlvs": [
            {
                "kind": f"{t.kind:#04x} {mcuboot_image.TLV_NAMES.get(t.kind, 'unknown')}", "bytes": len(t.value),
                "protected": t.protected,
            }
            for t in image.tlvs
        ],
    }  # fmt: skip


def _recording(path: Path) -> dict[str, Any]:
    from quarkctl.telemetry.store import load

    r = load(path)
    hello = next((s for s in r.samples if s.message.name == "hello"), None)
    return {
        "kind": "telemetry recording",
        "device": r.device,
        "board": hello.text("board") if hello else None,
        "serial": hello.text("serial") if hello else None,
        "layout": f"{r.schema.layout_hash:#06x}",
        "wire_bytes": r.wire_bytes,
        "file": r.ending,
        "sha256": r.sha256,
        "counts": r.counts.as_dict(),
    }


def _json(data: bytes, elf: Path | None) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise InputWrong(f"not JSON: {error}") from error
    if raw.get("schema") != "quarkctl.crash/1" or not isinstance(raw.get("fault"), dict):
        raise InputWrong(f"JSON of a kind that is not known: {raw.get('schema')!r}")
    from quarkctl.flash.rtos import describe_fault

    fault = raw["fault"]
    names = ("pc", "lr", "sp", "psr", "cfsr", "hfsr", "mmfar", "bfar")
    if not all(isinstance(fault.get(k), int) for k in names) or not isinstance(fault.get("kind"), str | int):
        raise InputWrong("the crash report is not whole")
    try:
        program = elf.read_bytes() if elf else b""
    except OSError as error:
        raise InputWrong(f"cannot read {elf}: {error.strerror}") from error
    registers = {k: f"{fault[k]:#010x}" for k in names}
    cause = raw.get("cause")
    if program or not isinstance(cause, str):
        cause = describe_fault(fault, program)
    return {"kind": "crash report", "device": raw.get("device"), "cause": cause, **registers}


def _print_tree(entry: dict[str, Any]) -> None:
    show.out.print(f"{entry['file']}  {entry['kind']}", style="bold", soft_wrap=True)
    for key, value in entry.items():
        if key in ("file", "kind"):
            continue
        if isinstance(value, list):
            show.out.print(f"  {key}")
            for item in value:
                words = "  ".join(f"{k} {v}" if k != "kind" else str(v) for k, v in item.items())
                show.out.print(f"    {words}", soft_wrap=True)
        elif isinstance(value, dict):
            show.out.print(f"  {key:<17} " + "  ".join(f"{k} {v}" for k, v in value.items()), soft_wrap=True)
        else:
            show.out.print(f"  {key:<17} {value}", soft_wrap=True)
