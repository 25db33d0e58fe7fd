"""Damaged and hostile image files end in an error that names field and offset, never in anything else."""

from __future__ import annotations

import tracemalloc
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarkctl.errors import InputWrong
from tests.formats.samples import SAMPLES

#: What hostile lengths look like.
EDGES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4096, 2**63 - 1, 2**64 - 512, 2**64 - 1]


@cache
def sample(name: str) -> bytes:
    return SAMPLES[name][0]()


def read(name: str, data: bytes) -> bool:
    """Whether the data was accepted."""
    try:
        SAMPLES[name][1](data)
    except InputWrong as error:
        assert error.message
        return False
    return True


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_are_whole(name: str) -> None:
    assert SAMPLES[name][1](sample(name))


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=150)
@given(data=st.data())
def test_any_overwritten_number_is_read_or_refused(name: str, data: st.DataObject) -> None:
    raw = bytearray(sample(name))
    for _ in range(data.draw(st.integers(1, 3))):
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        head = min(len(raw), 8192) if data.draw(st.booleans()) else len(raw)
        at = data.draw(st.integers(0, max(head - width, 0)))
        value = data.draw(st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)) % (1 << 8 * width)
        raw[at : at + width] = value.to_bytes(width, data.draw(st.sampled_from(["little", "big"])))
    read(name, bytes(raw))


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_cut_file_is_read_or_refused(name: str, data: st.DataObject) -> None:
    whole = sample(name)
    read(name, whole[: data.draw(st.integers(0, len(whole) - 1))])
    read(name, whole[data.draw(st.integers(1, len(whole))) :])


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60)
@given(noise=st.binary(max_size=300))
def test_noise_behind_the_right_beginning_is_read_or_refused(name: str, noise: bytes) -> None:
    read(name, sample(name)[:8] + noise)
    read(name, noise)


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in ("ramdisk", "patch", "rawprogram")])
def test_no_header_makes_a_reader_take_more_memory_than_the_file_has(name: str) -> None:
    whole = sample(name)
    limit = 64 * len(whole) + (2 << 20)
    for at in range(0, min(len(whole), 256), 4):
        raw = bytearray(whole)
        raw[at : at + 4] = b"\xff\xff\xff\x7f"
        tracemalloc.start()
        read(name, bytes(raw))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit, f"{peak} bytes after 0x7fffffff at {at}"
