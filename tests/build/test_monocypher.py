"""Fetching the one foreign source of the bootloader: once, checked, and safe beside others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quarkctl.build import monocypher
from quarkctl.errors import HostUnfit
from tests.conftest import RTOS

PIN = RTOS / "monocypher.txt"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_several_may_fetch_at_once(empty_cache: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: monocypher.folder(PIN), range(3)))
    assert len(folders) == 1
    only = folders.pop()
    assert only.is_relative_to(empty_cache) and "crypto_eddsa_check_equation" in (only / "monocypher.h").read_text()
    assert sorted(p.name for p in only.parent.iterdir()) == [only.name]


def test_another_hash_is_refused(empty_cache: Path, tmp_path: Path) -> None:
    pin = tmp_path / "pin.txt"
    pin.write_text(PIN.read_text().replace("sha256:5e", "sha256:5f"))
    with pytest.raises(HostUnfit, match="cannot fetch Monocypher"):
        monocypher.folder(pin)
    assert not list((empty_cache / "quarkctl").glob("pymonocypher*"))
