"""quarkctl keys"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quarkctl.cli import show
from quarkctl.cli.options import Json, Yes, examples
from quarkctl.errors import InputWrong, UsageWrong

if TYPE_CHECKING:
    from quarkctl.formats.trust import Trust, TrustedKey

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Keys: make them, see who is trusted, hand over.")

Product = Annotated[str, typer.Option("--product", metavar="NAME", help="Product, which is the name of its board.")]


@app.callback(epilog=examples("quarkctl keys new release.pem", "quarkctl keys show --product s1-virtual"))
def _keys() -> None:
    """Keys: make them, see who is trusted, hand over."""


@app.command(epilog=examples("quarkctl keys new release.pem", "quarkctl keys new trial.pem --development"))
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The private key; its public half goes to FILE.pub.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="ed25519 or ecdsa-p256.")] = "ed25519",
    development: Annotated[
        bool, typer.Option("--development", help="Mark it: products for sale will refuse it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a key pair. A file is never replaced. The private key is not encrypted: for releases, better a token."""
    from quarkctl.build import keys

    public = keys.new(file, kind, development=development)
    facts = {"private": str(file), "public": f"{file}.pub", "key_id": public.id.hex(), "kind": kind,
             "development": development}  # fmt: skip
    if as_json:
        show.document("quarkctl.key/1", facts)
    else:
        show.out.print(f"{file}  {kind}  {public.id.hex()}" + ("  development key" if development else ""))
        show.out.print(f"{file}.pub  its public half")


@app.command("show", epilog=examples("quarkctl keys show", "quarkctl keys show release.pem.pub --json"))
def show_keys(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="PEM files, trust documents, pkcs11:... or helper:... names."),
    ] = None,
    product: Product = "",
    pem: Annotated[bool, typer.Option("--pem", help="Only print the public halves, as PEM.")] = False,
    as_json: Json = False,
) -> None:
    """What a key file is, or a key in a token; without any, who may sign for which product."""
    from quarkctl.boards import trust as store

    if pem:
        if not files or as_json:
            raise UsageWrong("--pem prints the public half of keys", hint="quarkctl keys show KEY --pem")
        show.out.print("".join(_key(f).public_key.pem for f in files), end="", soft_wrap=True)
        return
    if files:
        found = [_describe(f) for f in files]
        if as_json:
            show.document("quarkctl.keys/1", {"keys": found})
        else:
            show.table(("file", "kind", "key id", ""), ((k["file"], k["kind"], k["key_id"], k["text"]) for k in found))
        return
    trusted = [store.load(p) for p in ([product] if product else store.products())]
    if as_json:
        show.document("quarkctl.trust/1", {"products": [_facts(t) for t in trusted]})
        return
    show.table(
        ("product", "document", "needs", "key", "key id", "until"),
        ((t.product, t.number, f"{t.threshold} of {len(t.keys)}", k.name + (" (development)" if k.development else ""),
          k.key_id[:16], t.expires or "-") for t in trusted for k in t.keys),
    )  # fmt: skip
    for t in trusted:
        for key_id in t.revoked:
            show.out.print(f"{t.product}: {key_id[:16]} is revoked")


@app.command(
    epilog=examples(
        "quarkctl keys rotate --product s1 --add new.pem.pub --remove old --key old.pem --key new.pem --out s1-2.json",
        "quarkctl keys rotate --document s1-2.json --key second.pem",
    )
)
def rotate(
    key: Annotated[list[str], typer.Option("--key", metavar="KEY", help="Signs the document: old keys and new ones.")],
    product: Product = "",
    add: Annotated[list[str] | None, typer.Option(metavar="PEM[=NAME]", help="Trust this key from now on.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="KEY", help="No longer: name or start of its id.")] = None,
    revoke: Annotated[list[str] | None, typer.Option(metavar="KEY", help="No longer, and say so: it was lost.")] = None,
    threshold: Annotated[int, typer.Option(min=0, max=16, help="So many must sign; 0: as before.")] = 0,
    expires: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="Last day on which it holds.")] = "",
    document: Annotated[Path | None, typer.Option(metavar="FILE", help="Add signatures to this one instead.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="The trust document.")] = None,
    as_json: Json = False,
) -> None:
    """Make the next trust document of a product: which keys may sign, how many. Old keys and new keys must sign it.

    It takes effect where it is installed: `quarkctl keys trust FILE`.
    """
    from quarkctl import files
    from quarkctl.build import keys
    from quarkctl.build import sign as signing
    from quarkctl.formats import trust

    signers = [signing.load(k) for k in key]
    if document:
        if product or add or remove or revoke or threshold or expires:
            raise UsageWrong("--document only takes more signatures", hint="leave the other options out")
        envelope, after = trust.read(_read(document))
        data, target = keys.endorse(envelope, after.product, signers), out or document
    else:
        if not product:
            raise UsageWrong("which product?", hint="--product NAME, or --document FILE to sign one that exists")
        after, data = keys.rotate(
            product, signers, add=[_to_add(a) for a in add or []], remove=remove or [], revoke=revoke or [],
            threshold=threshold, expires=_day(expires),
        )  # fmt: skip
        target = out or Path(f"trust-{product}-{after.number}.json")
    with files.replacing(target) as temporary:
        temporary.write_bytes(data)
    count = len(trust.read(data)[0].signatures)
    if as_json:
        show.document("quarkctl.trust-document/1", {"file": str(target), "signatures": count, **_facts(after)})
    else:
        show.out.print(f"{target}: trust document {after.number} of {after.product}, {count} signatures")
        show.err.print(f"install it where bundles are flashed: quarkctl keys trust {target}")


@app.command(epilog=examples("quarkctl keys trust trust-s1-2.json", "quarkctl keys trust trust-s1-1.json --yes"))
def trust(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A trust document, as `keys rotate` makes it.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Install a trust document. The keys that are trusted now must have signed it."""
    from quarkctl.boards import trust as store
    from quarkctl.cli.ask import insist
    from quarkctl.formats import trust as documents

    data = _read(file)
    _, wanted = documents.read(data)
    pin = store.needs_pin(wanted.product)
    if pin:
        listed = ", ".join(f"{k.name} {k.key_id[:16]}" for k in wanted.keys)
        insist(f"pin {listed} as the keys of {wanted.product}?", yes=yes)
    after = store.install(data, pin=pin)
    if as_json:
        show.document("quarkctl.trust/1", {"products": [_facts(after)]})
    else:
        show.out.print(f"{after.product}: {after.threshold} of {', '.join(k.name for k in after.keys)} must sign")


def _to_add(text: str) -> Any:
    from quarkctl.build import keys

    path, _, name = text.partition("=")
    return keys.trusted_key(Path(path), name)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise UsageWrong(f"{text!r} is no day", hint="write it as 2027-12-31") from error


def _key(name: str) -> TrustedKey:
    """A PEM file, or a key that stays where it is. Raises what reading it raises."""
    from quarkctl.boards import trust as store
    from quarkctl.build import keys
    from quarkctl.build import sign as signing
    from quarkctl.formats.trust import TrustedKey

    if not _elsewhere(name):
        return keys.trusted_key(Path(name))
    public = signing.load(name).public_key
    return TrustedKey(name, public, public.id.hex() in store.development_key_ids())


def _elsewhere(name: str) -> bool:
    return name.partition(":")[0] in ("pkcs11", "helper") and not Path(name).exists()


def _describe(name: str) -> dict[str, Any]:
    from quarkctl.formats import trust

    data = b"" if _elsewhere(name) else _read(Path(name))
    if data.lstrip()[:1] == b"{":
        _, document = trust.read(data)
        facts = _facts(document)
        text = f"document {document.number} of {document.product}"
        return {"file": name, "kind": "trust", "key_id": "-", "text": text, **facts}
    key = _key(name)
    text = ("private, " if b"PRIVATE KEY" in data else "") + ("development key" if key.development else "")
    return {
        "file": name, "kind": key.public_key.kind, "key_id": key.key_id, "text": text.rstrip(", "),
        "development": key.development,
    }  # fmt: skip


def _facts(trusted: Trust) -> dict[str, Any]:
    return {
        "product": trusted.product,
        "number": trusted.number,
        "threshold": trusted.threshold,
        "expires": trusted.expires.isoformat() if trusted.expires else None,
        "keys": [
            {"name": k.name, "key_id": k.key_id, "kind": k.public_key.kind, "development": k.development}
            for k in trusted.keys
        ],
        "revoked": list(trusted.revoked),
    }


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise InputWrong(f"cannot read {path}: {error.strerror}") from error
