"""What is decided before anything is touched."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quarkctl import boards
from quarkctl.build import sign
from quarkctl.build.source import development_key
from quarkctl.errors import DeviceRefused, InputWrong, QuarkError
from quarkctl.flash import rtos_plan
from quarkctl.flash.device import DeviceState, Health, SlotImage
from quarkctl.flash.plan import Plan, Wish
from quarkctl.formats import mcuboot_image
from quarkctl.formats.mcuboot_image import Version
from quarkctl.formats.signature import PublicKey

BOARD = boards.load("s1-virtual")
SIGNER = sign.load(development_key())
OLD = SlotImage(0, Version(1, 0, 0), b"\1" * 32, active=True, confirmed=True, pending=False)


def image(
    version: str = "1.1.0", board: str = "s1-virtual", counter: int = 1, payload: bytes = b"x" * 900,
    ar1_min: Version | None = None,
) -> bytes:  # fmt: skip
    return mcuboot_image.build(
        payload, version=Version.parse(version), load_address=0x0100_0000, header_bytes=0x400, board=board,
        security_counter=counter, public_key=SIGNER.public_key, sign=lambda message: SIGNER.sign(message, "test"),
        ar1_min=ar1_min,
    )  # fmt: skip


STATE = DeviceState(
    board="s1-virtual", serial="VS1-1", mode="application", boot_id=5, slot=0, security_counter=1,
    key_hash=SIGNER.public_key.id, images=(OLD,), slot_bytes=0x100000,
)  # fmt: skip
HEALTHY = Health(9, 9, "", 4000, {"left": 80, "right": 75})


def make(
    data: bytes | None = None, state: DeviceState = STATE, health: Health | None = HEALTHY, wish: Wish | None = None
) -> Plan:
    data = data or image()
    return rtos_plan.make(mcuboot_image.parse(data), data, BOARD, "sim:t", state, health, wish or Wish())


def refusal(kind: type[QuarkError], **how: object) -> str:
    with pytest.raises(kind) as error:
        make(**how)  # type: ignore[arg-type]
    assert error.value.hint or kind is InputWrong
    return error.value.message


def test_a_newer_image_goes_into_the_other_slot() -> None:
    made = make()
    assert made.step_names == ("upload", "verify", "restart", "health", "confirm")
    assert (made.facts["old_slot"], made.facts["new_slot"], made.new_version) == ("A", "B", "1.1.0")


def test_what_runs_already_is_left_alone_unless_forced() -> None:
    data = image()
    running = replace(OLD, version=Version(1, 1, 0), hash=mcuboot_image.parse(data).digest)
    state = replace(STATE, images=(running,))
    assert make(data, state).steps == ()
    assert make(data, state, wish=Wish(force=True)).step_names[0] == "upload"


def test_what_runs_on_trial_is_confirmed_when_flashed_again() -> None:
    data = image()
    running = replace(OLD, version=Version(1, 1, 0), hash=mcuboot_image.parse(data).digest, confirmed=False)
    assert make(data, replace(STATE, images=(running,))).step_names == ("health", "confirm")


def test_an_upload_that_is_there_already_is_skipped() -> None:
    data = image()
    there = SlotImage(
        1, Version(1, 1, 0), mcuboot_image.parse(data).digest, active=False, confirmed=False, pending=False
    )
    assert make(data, replace(STATE, images=(OLD, there))).step_names == ("verify", "restart", "health", "confirm")


def test_a_trial_of_something_else_is_not_disturbed() -> None:
    state = replace(STATE, images=(replace(OLD, confirmed=False),))
    assert "on trial" in refusal(DeviceRefused, state=state)


def test_an_older_version_needs_permission() -> None:
    assert "older (0.9.0) than what runs (1.0.0)" in refusal(InputWrong, data=image("0.9.0"))
    assert make(image("0.9.0"), wish=Wish(allow_downgrade=True)).steps


def test_an_older_security_counter_is_refused_whatever_is_permitted() -> None:
    state = replace(STATE, security_counter=3)
    assert "security counter 1, the device demands 3" in refusal(InputWrong, state=state, wish=Wish(True, True))


def test_an_image_that_needs_a_newer_ar1_is_refused() -> None:
    data = image(ar1_min=Version(1, 2, 0, 7))
    assert "needs AR1 1.2.0+7 or newer, the device does not say" in refusal(InputWrong, data=data)
    old = replace(STATE, ar1_version=Version(1, 1, 9))
    assert "needs AR1 1.2.0+7 or newer, it runs 1.1.9" in refusal(InputWrong, data=data, state=old)
    assert make(data, replace(STATE, ar1_version=Version(1, 2, 0))).steps


def test_an_image_for_another_board_is_refused() -> None:
    assert "made for g1-virtual, the device is s1-virtual" in refusal(InputWrong, data=image(board="g1-virtual"))


def test_another_key_is_refused() -> None:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"other").digest())
    data = mcuboot_image.build(
        b"x" * 900, version=Version(1, 1, 0), load_address=0x0100_0000, header_bytes=0x400, board="s1-virtual",
        security_counter=1, public_key=PublicKey.of(key.public_key()), sign=key.sign,
    )  # fmt: skip
    assert "the device trusts" in refusal(InputWrong, data=data)


def test_a_flipped_bit_is_refused() -> None:
    data = bytearray(image())
    data[0x400 + 17] ^= 4
    assert "damaged" in refusal(InputWrong, data=bytes(data))


def test_a_forged_signature_is_refused() -> None:
    data = bytearray(image())
    data[-5] ^= 1
    assert "signature does not verify" in refusal(InputWrong, data=bytes(data))


def test_an_image_larger_than_the_slot_is_refused() -> None:
    assert "a slot of s1-virtual holds" in refusal(InputWrong, data=image(payload=b"x" * 0x100000))


def test_something_behind_the_image_is_refused() -> None:
    assert "bytes of something else follow" in refusal(InputWrong, data=image() + b"more")
    assert make(image() + b"\xff" * 64).steps


def test_an_update_needs_charge_in_one_pack() -> None:
    low = replace(HEALTHY, soc_pct={"left": 3, "right": 14})
    assert "the fuller battery has 14 %, an update needs 15 %" in refusal(DeviceRefused, health=low)
    assert make(health=replace(HEALTHY, soc_pct={"left": 3, "right": 15})).steps


def test_a_strangers_server_without_our_group_is_flashed_as_far_as_it_tells() -> None:
    stranger = DeviceState(images=(OLD,))
    assert make(state=stranger, health=None).steps


def test_a_server_that_only_takes_images_where_it_starts_from_is_asked_about() -> None:
    recovery = DeviceState(images=(OLD,), upload_images={0: 1})
    made = make(state=recovery, health=None)
    assert "there is no way back" in made.questions[0]
    assert (made.facts["new_slot"], made.facts["upload_image"], made.facts["transactional"]) == ("A", 1, False)
    both = make(state=replace(recovery, upload_images={0: 1, 1: 2}), health=None)
    assert (both.questions, both.facts["new_slot"], both.facts["upload_image"]) == ((), "B", 2)
