"""Addresses to places: hostile files give an error, never a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from quarkctl.formats import elf


@given(data=st.binary(max_size=300))
def test_any_bytes_are_an_elf_or_a_clear_error(data: bytes) -> None:
    for candidate in (data, b"\x7fELF\x01\x01\x01" + data):
        try:
            elf.place(candidate, 0x1000)
        except InputWrong:
            continue


def test_a_build_id_is_found_wherever_it_lies() -> None:
    note = bytes.fromhex("04000000 14000000 03000000") + b"GNU\0" + bytes(range(20))
    assert elf.build_id(b"x" * 77 + note) == bytes(range(8))
    assert elf.build_id(b"nothing") == b""


def test_what_is_no_elf_is_named() -> None:
    with pytest.raises(InputWrong, match="not a sound ELF"):
        elf.place(b"text", 1)
