"""quarkctl bundle"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Events, Json, Out, examples

if TYPE_CHECKING:
    from quarkctl.build.bundle.change import Opened

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Look into release bundles, and sign them.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A release bundle (.qfw).")]
Keys = Annotated[list[str], typer.Option("--key", metavar="KEY", help="PEM file, pkcs11:, helper:; may be repeated.")]
PublicKey = Annotated[Path, typer.Option("--key", metavar="PEM", help="Public key of whoever signs elsewhere.")]


@app.callback(epilog=examples("quarkctl bundle verify release.qfw", "quarkctl bundle diff old.qfw new.qfw"))
def _bundle() -> None:
    """Look into release bundles, and sign them. `quarkctl build bundle` makes one, `quarkctl flash` takes it."""


@app.command(epilog=examples("quarkctl bundle verify release.qfw", "quarkctl bundle verify release.qfw --json"))
def verify(file: File, as_json: Json = False, events: Events = "") -> None:
    """Is it whole, and signed by those who may? Every byte is checked."""
    from quarkctl.build.bundle import change

    with show.Reporter(events, quiet=as_json) as progress, change.opened(file) as one:
        change.verify(one, progress)
    if as_json:
        show.document("quarkctl.bundle-verify/1", {"file": str(file), "result": "verified", **_facts(one)})
    elif events != "-":
        show.out.print(f"{_title(one)}: whole, {_signed_by(one)}")


@app.command("show", epilog=examples("quarkctl bundle show release.qfw", "quarkctl bundle show release.qfw --json"))
def show_bundle(file: File, as_json: Json = False) -> None:
    """What is in it, for whom, and who signed it. The images are not read: `verify` does that."""
    from quarkctl.build.bundle import change

    with change.opened(file, trusted_only=False) as one:
        facts = _facts(one)
    if as_json:
        show.document("quarkctl.bundle-show/1", {"file": str(file), **facts})
        return
    show.out.print(_title(one), style="bold")
    print_facts(facts)
    if not one.trusted:
        show.err.print(f"not to be trusted: {one.why}", style="yellow")


def print_facts(facts: dict[str, Any]) -> None:
    """Tables of what is in a bundle."""
    show.table(
        ("chip", "version", "rollback index", "needs"),
        ((c["chip"], c["version"], c["rollback_index"], ", ".join(f"{k} {v}" for k, v in c["needs"].items()) or "-")
         for c in facts["chips"]),
    )  # fmt: skip
    show.table(
        ("member", "bytes", "sha256", "goes to"),
        ((m["name"], m["size_bytes"], m["sha256"][:16], m["target"] or "-") for m in facts["members"]),
    )
    show.out.print(f"hardware   {', '.join(facts['hardware']) or 'all revisions'}")
    show.out.print(f"signatures {', '.join(_signature(s) for s in facts['signatures']) or 'none'}")


def describe(file: Path) -> dict[str, Any]:
    """The facts of a bundle, for those who explain files. Raises InputWrong."""
    from quarkctl.build.bundle import change

    with change.opened(file, trusted_only=False) as one:
        return _facts(one)


@app.command(epilog=examples("quarkctl bundle diff 1.0.qfw 1.1.qfw", "quarkctl bundle diff 1.0.qfw 1.1.qfw --json"))
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD")],
    new: Annotated[Path, typer.Argument(metavar="NEW")],
    as_json: Json = False,
) -> None:
    """What changed: versions, requirements, members."""
    from quarkctl.build.bundle import change

    with change.opened(old, trusted_only=False) as a, change.opened(new, trusted_only=False) as b:
        rows = change.differences(a.manifest, b.manifest)
    if as_json:
        changes = [{"what": w, "old": x or None, "new": y or None} for w, x, y in rows]
        show.document("quarkctl.bundle-diff/1", {"old": str(old), "new": str(new), "changes": changes})
    elif rows:
        show.table(("what", old.name, new.name), ((w, x or "-", y or "-") for w, x, y in rows))
    else:
        show.out.print("the same content")


@app.command(
    epilog=examples("quarkctl bundle extract r.qfw --out r", "quarkctl bundle extract r.qfw quarkctl/sbom.cdx.json")
)
def extract(
    file: File,
    names: Annotated[list[str] | None, typer.Argument(metavar="[MEMBER]...", help="Only these.")] = None,
    out: Out = None,
    as_json: Json = False,
    events: Events = "",
) -> None:
    """Write its members into a folder, each verified first. The bundle must be signed by those who may."""
    from quarkctl.build.bundle import change

    with show.Reporter(events, quiet=as_json) as progress, change.opened(file) as one:
        written = change.extract(one, out or Path(file.stem), names or [], progress)
    if as_json:
        show.document("quarkctl.bundle-extract/1", {"file": str(file), "written": [str(p) for p in written]})
    elif events != "-":
        for path in written:
            show.out.print(str(path))


@app.command(
    epilog=examples(
        "quarkctl bundle sign r.qfw --key k.pem", "quarkctl bundle sign r.qfw --key 'pkcs11:token=T;object=O'"
    )
)
def sign(file: File, key: Keys, out: Out = None, as_json: Json = False, events: Events = "") -> None:
    """Add signatures. All content is verified before; the file is replaced whole, or --out is written."""
    from quarkctl.build import sign as signing

    _add(file, [signing.load(k) for k in key], out, as_json=as_json, events=events)


@app.command(epilog=examples("quarkctl bundle digest r.qfw --key release-pub.pem --out requests"))
def digest(file: File, key: PublicKey, out: Out = None, as_json: Json = False) -> None:
    """Write what is to be signed elsewhere: .tbs files (the exact bytes) with .json beside them. `attach` takes the .sig."""
    from quarkctl.build import sign as signing
    from quarkctl.build.bundle import change
    from quarkctl.build.bundle.seal import Seal

    folder = out or Path(f"{file.stem}-requests")
    signer = _elsewhere(key, folder)
    with change.opened(file, trusted_only=False) as one:
        change.verify(one)
        what = f"{one.manifest.product}-{one.manifest.version}"
        Seal(one.head.envelope, one.head.provenance).signed([signer], what)
    if as_json:
        show.document("quarkctl.bundle-digest/1", {"folder": str(folder), "wanted": signer.wanted})
        return
    if not signer.wanted:
        show.out.print(
            f"{folder} has all signatures already: quarkctl bundle attach {file} --key {key} --from {folder}"
        )
    for name in signer.wanted:
        show.out.print(f"{folder}: sign {name} ({signing.default_algorithm(signer.public_key).value})")
    show.err.print(f"put each signature beside its .tbs as .sig, then: quarkctl bundle attach {file} --key {key}")


@app.command(epilog=examples("quarkctl bundle attach r.qfw --key release-pub.pem --from requests"))
def attach(
    file: File,
    key: PublicKey,
    folder: Annotated[Path | None, typer.Option("--from", metavar="DIR", help="Where the .sig files are.")] = None,
    out: Out = None,
    as_json: Json = False,
    events: Events = "",
) -> None:
    """Take signatures that were made elsewhere. The result is what signing here would have given."""
    signer = _elsewhere(key, folder or Path(f"{file.stem}-requests"))
    _add(file, [signer], out, as_json=as_json, events=events)


def _elsewhere(key: Path, folder: Path) -> Any:
    from urllib.parse import quote

    from quarkctl.build import sign as signing

    return signing.load(f"detached:{quote(str(key))}?folder={quote(str(folder))}")


def _add(file: Path, signers: list[Any], out: Path | None, *, as_json: bool, events: str) -> None:
    from quarkctl.build.bundle import change

    with show.Reporter(events, quiet=as_json) as progress:
        change.sign(file, out or file, signers, progress)
    records = [r.as_dict() for s in signers for r in s.log]
    if as_json:
        show.document("quarkctl.bundle-sign/1", {"file": str(out or file), "signed": records})
    elif events != "-":
        show.out.print(f"{out or file}: signed by {', '.join(s.public_key.id.hex()[:12] for s in signers)}")


def _title(one: Opened) -> str:
    return f"{one.path.name}  {one.manifest.product} {one.manifest.version}"


def _signed_by(one: Opened) -> str:
    names = ", ".join(
        _signature({"key_id": k.key_id, "name": k.name, "development": k.development}) for k in one.signed
    )
    return f"signed by {names}"


def _signature(s: dict[str, Any]) -> str:
    name = f"{s['name']} " if s["name"] else ""
    return f"{name}{s['key_id'][:12]}" + (" (development key)" if s["development"] else "")


def _facts(one: Opened) -> dict[str, Any]:
    m = one.manifest
    target = {e.member: f"{c.chip}:{c.target}" for c in m.components for e in c.extents}
    known = {k.key_id: k for k in one.signed}
    return {
        "kind": "release bundle",
        "product": m.product,
        "version": m.version,
        "hardware": list(m.hardware),
        "size_bytes": one.size_bytes,
        "trusted": one.trusted is not None,
        "why_not": one.why or None,
        "threshold": one.trusted.threshold if one.trusted else None,
        "signatures": [
            {"key_id": k, "name": known[k].name if k in known else "",
             "development": k in known and known[k].development}
            for k in one.head.envelope.signatures
        ],
        "chips": [
            {"chip": name, "version": str(c.version), "rollback_index": c.rollback_index,
             "needs": {k: str(v) for k, v in c.needs.items()}}
            for name, c in m.chips.items()
        ],
        "members": [
            {"name": e.name, "size_bytes": e.size_bytes, "sha256": e.sha256.hex(), "target": target.get(e.name)}
            for e in m.members
        ],
        "tool_version": m.tool_version,
        "notes": dict(m.notes),
    }  # fmt: skip
