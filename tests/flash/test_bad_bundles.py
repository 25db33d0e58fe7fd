"""What is wrong with a bundle is told before any device is opened: `flash` prepares the bundle first, then looks for one."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from quarkctl.boards import trust
from quarkctl.build import keys, sign
from quarkctl.errors import QuarkError
from quarkctl.flash.bundle import prepare
from tests import bundles
from tests.conftest import Quarkctl


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARKCTL_STATE_DIR", str(tmp_path / "state"))


def refused(path: Path) -> str:
    """Cause and hint, of which there must be both."""
    with pytest.raises(QuarkError) as failure:
        prepare([str(path)])
    error = failure.value
    assert error.exit_code == 6 and error.message.startswith(str(path)) and error.hint, (error.message, error.hint)
    return f"{error.message}; {error.hint}"


def test_a_damaged_or_shortened_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Each byte and each length is tried with the reader alone (tests/formats); here each kind of place, as a file."""
    path = bundles.make(tmp_path, ar1={"vbmeta": bundles.vbmeta("1.0.1", 1), "boot": b"b" * 900}).path
    prepare([str(path)])
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as members:
        starts = [i.header_offset for i in members.infolist()]
    places = {*range(0, len(whole), 397), *starts, *(s + 31 for s in starts), *range(len(whole) - 22, len(whole))}
    for at in sorted(places):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([whole[at] ^ 1 << at % 8]))
        refused(path)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(whole[at : at + 1])
    for size in sorted(places, reverse=True):
        os.truncate(path, size)
        refused(path)


def untrusted(tmp_path: Path, new: Path) -> Iterator[tuple[str, Path, str]]:
    """(what is wrong, bundle, what is told), each with the trust in which it is wrong."""
    development = sign.load(bundles.DEVELOPMENT)
    add = [keys.trusted_key(new.with_name(new.name + ".pub"))]
    yield "unsigned", bundles.make(tmp_path / "u", keys=()).path, "not signed"
    stranger = bundles.key_file(tmp_path / "stranger.pem")
    yield "a stranger's", bundles.make(tmp_path / "s", keys=(stranger,)).path, "not trusted for s1-virtual"
    path = bundles.make(tmp_path / "d").path
    held = bundles.make(tmp_path / "h", product="esp32-devkit", keys=(new,)).path
    yield "no keys known", held, "pin those of its maker: quarkctl keys trust FILE"
    _, document = keys.rotate("s1-virtual", [development, sign.load(new)], add=add, threshold=2)
    trust.install(document)
    yield "too few", path, "1 of the 2 keys"
    _, document = keys.rotate("s1-virtual", [development, sign.load(new)], threshold=1, revoke=["development"])
    trust.install(document)
    yield "revoked", path, "revoked"


def test_a_bundle_that_is_signed_by_nobody_who_may_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = bundles.key_file(tmp_path / "new.pem")
    for what, path, told in untrusted(tmp_path, new):
        assert told in refused(path), what
    _, document = keys.rotate("s1-virtual", [sign.load(new)], expires=trust.today())
    trust.install(document)
    path = bundles.make(tmp_path / "e", keys=(new,)).path
    prepare([str(path)])
    tomorrow = trust.today() + timedelta(days=1)
    monkeypatch.setattr(trust, "today", lambda: tomorrow)
    assert "valid until" in refused(path)


@pytest.mark.parametrize(
    "damage",
    [lambda d: d[:-1], lambda d: d[: len(d) // 2], lambda d: d[:40], lambda d: b"", lambda d: d[:-9] + b"x" + d[-8:]],
    ids=["ends early", "half", "a head", "nothing", "damaged"],
)
def test_a_pipe_that_brings_no_whole_bundle_is_refused_before_its_end_counts(
    tmp_path: Path, quarkctl: Quarkctl, damage: Callable[[bytes], bytes]
) -> None:
    path = bundles.make(tmp_path, ar1={"vbmeta": bundles.vbmeta("1.0.1", 1), "boot": b"b" * 900}).path
    path.write_bytes(damage(path.read_bytes()))
    os.mkfifo(tmp_path / "pipe")
    process = quarkctl.start("bundle", "verify", tmp_path / "pipe")
    (tmp_path / "pipe").write_bytes(path.read_bytes())
    out, err = process.communicate(timeout=60)
    assert process.returncode == 6 and "hint:" in err and "Traceback" not in err and not out
