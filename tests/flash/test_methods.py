"""Which method is meant, and what it is asked for."""

from __future__ import annotations

from dataclasses import fields

import pytest

from quarkctl.errors import UsageWrong
from quarkctl.flash.methods import METHODS, OPTIONS
from quarkctl.flash.plan import Ar1Wish, Wish
from tests.conftest import Quarkctl


@pytest.mark.parametrize(
    ("method", "wish"),
    [
        ("fastboot", Wish(allow_downgrade=True)),
        ("fastboot", Wish(ar1=Ar1Wish(programmer="prog.elf"))),
        ("edl", Wish(ar1=Ar1Wish(slot="a"))),
        ("smp", Wish(ar1=Ar1Wish(restart=False))),
        ("esptool", Wish(framing="raw")),
        ("bundle", Wish(ar1=Ar1Wish(verify=False))),
    ],
)
def test_what_a_method_would_pass_over_is_refused_and_its_method_named(method: str, wish: Wish) -> None:
    with pytest.raises(UsageWrong) as told:
        METHODS[method].check(wish)
    (name,) = wish.asked
    assert told.value.message == f"{method} knows no {OPTIONS[name]}"
    assert "--via " in told.value.hint


def test_every_wish_is_one_of_some_method_or_of_all_and_has_an_option() -> None:
    wishes = {f.name for kind in (Wish, Ar1Wish) for f in fields(kind)} - {"ar1", "force", "verify_only"}
    assert wishes == set(OPTIONS) == set().union(*(m.heeds for m in METHODS.values()))


def test_an_option_of_another_method_ends_a_flash_before_files_are_read(quarkctl: Quarkctl) -> None:
    done = quarkctl("flash", "boot.img@boot", "--via", "edl", "--slot", "a")
    assert done.code == 2
    assert "edl knows no --slot" in done.err
