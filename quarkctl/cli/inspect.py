"""quarkctl inspect"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl import boards
from quarkctl.cli import show
from quarkctl.cli.options import Json, examples
from quarkctl.errors import InputWrong, UsageWrong
from quarkctl.formats import archive, mcuboot_image, recording
from quarkctl.formats.record import Damaged
from quarkctl.formats.signature import PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quarkctl.files import File

app = typer.Typer(add_completion=False)


@app.command(epilog=examples("quarkctl inspect rtos-1.1.0.bin super.img", "quarkctl inspect --diff old.img new.img"))
def inspect(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Images, tables, bundles, recordings, crash reports.")
    ],
    elf: Annotated[
        Path | None, typer.Option("--elf", metavar="FILE", help="Program of a crash report: names file and line.")
    ] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Only what differs between two files.")] = False,
    as_json: Json = False,
) -> None:
    """Explain files: what they are, whether they are whole, whether they are signed. Exit code 6: one is not whole."""
    if diff and len(files) != 2:
        raise UsageWrong(f"--diff compares two files, here are {len(files)}", hint="quarkctl inspect --diff A B")
    described = [{"file": str(f), **describe(f, elf)} for f in files]
    if diff:
        _print_diff(described, as_json=as_json)
        return
    if as_json:
        show.document("quarkctl.inspect/1", {"files": described})
    else:
        for entry in described:
            _print_tree(entry)
    for entry in described:
        for problem in _problems(entry):
            raise InputWrong(f"{entry['file']}: {problem}", hint="what is told of it could be read all the same")


def _problems(tree: Any) -> Iterator[str]:
    """What a reader could read past, anywhere in what is told of a file."""
    if isinstance(tree, dict):
        yield from tree.get("problems") or ()
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _problems(inner)


def describe(path: Path, elf: Path | None = None) -> dict[str, Any]:
    """What a file is. Raises InputWrong for a kind that is not known."""
    from quarkctl.files import File

    if path.is_dir():
        raise InputWrong(f"cannot read {path}: it is a folder")
    with File(path) as file:
        try:
            head = file[:64]
            if mcuboot_image.looks_like(head):
                return _image(_small(file))
            if recording.looks_like(head):
                return _recording(path)
            if head.lstrip()[:1] == b"{":
                return _json(_small(file), elf)
            if archive.looks_like(head):
                from quarkctl.cli import bundle

                return bundle.describe(path)
            found = _of_the_application_processor(file)
        except InputWrong as error:
            raise InputWrong(f"{path}: {error.message.removeprefix(f'{path}: ')}", error.hint) from error
    if found is None:
        raise InputWrong(
            f"{path} is no file that quarkctl knows",
            hint="it reads images of both chips, bundles, partition tables, XML of EDL, recordings and crash reports",
        )
    _name_keys(found, _known_keys())
    return found


#: Files that are read whole: images of the microcontroller, reports, compressed ramdisks.
_SMALL_BYTES_MAX = 256 << 20


def _small(file: File) -> bytes:
    if len(file) > _SMALL_BYTES_MAX:
        raise Damaged("file", "end", len(file), f"is too far: such a file has at most {_SMALL_BYTES_MAX} bytes")
    return file[: len(file)]


def _known_keys() -> dict[str, str]:
    """{SHA-256 of a key as AVB writes it: names}, from all profiles."""
    known: dict[str, list[str]] = {}
    prefix = "ar1.avb_key."
    for name in boards.names():
        for fact, value in boards.load(name).facts.items():
            if fact.startswith(prefix):
                known.setdefault(str(value.value), []).append(f"{fact.removeprefix(prefix)} of {name}")
    return {digest: ", ".join(names) for digest, names in known.items()}


def _name_keys(tree: Any, known: dict[str, str]) -> None:
    """Put a name beside every key of a tree that a profile knows, and say so where none does."""
    if isinstance(tree, dict):
        fields = list(tree.items())
        tree.clear()
        for field, value in fields:
            tree[field] = value
            if field == "public_key_sha256" and value:
                tree["key"] = known.get(value, "in no board profile")
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        _name_keys(inner, known)


def _of_the_application_processor(file: File) -> dict[str, Any] | None:
    from quarkctl.build.ar1.compress import expand, kind_of
    from quarkctl.build.processors import Processors
    from quarkctl.formats.explain import explain

    how = kind_of(file[:8])
    if how == "none":
        with Processors() as processors:
            return explain(file, processors.map)
    content = expand(_small(file), _SMALL_BYTES_MAX)
    try:
        inner = explain(content)
    except InputWrong as error:
        raise InputWrong(f"expanded: {error.message}", error.hint) from error
    return {"kind": f"{how} file", "bytes": len(file), "content": inner or "of no known kind"}


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


def _print_diff(described: list[dict[str, Any]], *, as_json: bool) -> None:
    from quarkctl.formats.explain import differences

    a, b = ({k: v for k, v in d.items() if k != "file"} for d in described)
    found = differences(a, b)
    if as_json:
        rows = [{"field": p, "a": left, "b": right} for p, left, right in found]
        show.document("quarkctl.inspect-diff/1", {"files": [d["file"] for d in described], "differences": rows})
        return
    if not found:
        show.out.print("nothing that quarkctl shows of them differs")
        return
    show.table(("field", described[0]["file"], described[1]["file"]), found)


def _print_tree(entry: dict[str, Any]) -> None:
    show.out.print(f"{entry['file']}  {entry['kind']}", style="bold", soft_wrap=True)
    _print_fields(entry, "  ")


def _print_fields(entry: dict[str, Any], indent: str) -> None:
    for key, value in entry.items():
        if key in ("file", "kind"):
            continue
        if isinstance(value, list):
            show.out.print(f"{indent}{key}")
            for item in value:
                words = str(item)
                if isinstance(item, dict):
                    words = "  ".join(f"{k} {v}" if k != "kind" else str(v) for k, v in item.items())
                show.out.print(f"{indent}  {words}", soft_wrap=True)
        elif isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
            show.out.print(f"{indent}{key:<17} {value.get('kind', '')}".rstrip())
            _print_fields(value, indent + "  ")
        elif isinstance(value, dict):
            show.out.print(f"{indent}{key:<17} " + "  ".join(f"{k} {v}" for k, v in value.items()), soft_wrap=True)
        elif value is not None:
            show.out.print(f"{indent}{key:<17} {value}", soft_wrap=True)
