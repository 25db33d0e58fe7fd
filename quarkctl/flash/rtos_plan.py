"""The microcontroller's plan: image + board profile + what the device says -> steps, or a refusal. Pure."""

from __future__ import annotations

from dataclasses import replace

from quarkctl.boards import Board
from quarkctl.errors import DeviceRefused, InputWrong
from quarkctl.flash.device import DeviceState, Health, SlotImage
from quarkctl.flash.plan import Plan, Step, Wish
from quarkctl.formats import mcuboot_image
from quarkctl.formats.mcuboot_image import Image
from quarkctl.formats.signature import PublicKey

SLOT_NAMES = ("A", "B")


def slot_name(slot: int) -> str:
    return SLOT_NAMES[slot] if 0 <= slot < len(SLOT_NAMES) else "-"


def check_image(image: Image, data: bytes, board: Board) -> None:
    """What can be known without a device. Raises InputWrong."""
    if not image.hash_ok:
        raise InputWrong("the image is damaged: its hash does not match its content", hint="build or download it again")
    if image.size_bytes != len(data) and data[image.size_bytes :].strip(b"\xff\0"):
        raise InputWrong(f"{len(data) - image.size_bytes} bytes of something else follow the image")
    if image.board != board.name:
        raise InputWrong(
            f"the image is made for {image.board or 'no board in particular'}, the device is {board.name}",
            hint=f"quarkctl build rtos --board {board.name}",
        )
    limit = board.need("rtos.slot_bytes")
    if len(data) > limit:
        raise InputWrong(f"the image has {len(data)} bytes, a slot of {board.name} holds {limit}")


def check_signature(image: Image, board: Board, device_key_hash: bytes) -> None:
    """Signed with the key that the device trusts, and soundly so as far as that key is known here. Raises InputWrong."""
    keys = [PublicKey.from_raw(bytes.fromhex(v.value)) for k, v in board.facts.items() if k.startswith("rtos.key.")]
    trusted = device_key_hash or (keys[0].id if keys else b"")
    if trusted and image.key_hash != trusted:
        raise InputWrong(
            f"the image is signed with key {image.key_hash.hex()[:12] or 'none'}, the device trusts {trusted.hex()[:12]}",
            hint="build it with the device's key: quarkctl build rtos --key KEY.pem",
        )
    for key in keys:
        if key.id == image.key_hash:
            why = mcuboot_image.verify(image, key)
            if why:
                raise InputWrong(f"the image must not be trusted: {why}", hint="build or download it again")


def make(
    image: Image, data: bytes, board: Board, device: str, state: DeviceState, health: Health | None, wish: Wish
) -> Plan:
    """The plan for one device. Raises InputWrong (image), DeviceRefused (state of the device)."""
    check_image(image, data, board)
    check_signature(image, board, state.key_hash)
    if state.slot_bytes and len(data) > state.slot_bytes:
        raise InputWrong(f"the image has {len(data)} bytes, the device's slot holds {state.slot_bytes}")
    if not wish.verify_only:
        _check_age(image, state, wish)
        _check_ar1(image, state)
        _check_power(board, health)
    check_heat(board, health.hottest_decic if health else None)

    active = state.active
    spare = _spare(state)
    steps = ["upload", "verify", "restart", "health", "confirm"]
    reasons: list[str] = []
    if wish.verify_only:
        steps = ["compare"]
    elif active and active.hash == image.digest and not wish.force:
        if active.confirmed:
            steps, reasons = [], ["this image runs already and is confirmed"]
        else:
            steps, reasons = ["health", "confirm"], ["this image runs already, on trial"]
        spare = active.slot
    elif active and not active.confirmed:
        raise DeviceRefused(
            f"the device runs {active.version} on trial; the other slot holds the way back",
            hint="confirm it by flashing it again, or reset the device to go back",
        )
    elif not wish.force and any(i.slot == spare and i.hash == image.digest for i in state.images):
        steps.remove("upload")
        reasons.append(f"slot {slot_name(spare)} holds this image already")
    if state.recovery:
        reasons.append("only the bootloader runs: no image to go back to")
    # MCUboot's serial recovery may take images only into the slot that is started: then nothing is left to go back to.
    direct = bool(state.upload_images) and spare not in state.upload_images and "upload" in steps
    if direct:
        spare = min(state.upload_images)
    question = (
        f"slot {slot_name(spare)} of {device} is the one that starts: there is no way back from this image. Write it?"
    )
    texts = {
        "upload": f"write {len(data)} bytes into slot {slot_name(spare)}",
        "verify": f"compare the image hash of slot {slot_name(spare)}",
        "restart": f"test boot of {image.version}",
        "health": "wait until all self-tests pass",
        "confirm": f"make {image.version} permanent",
        "compare": "compare the image hashes of both slots; write nothing",
    }
    return Plan(
        device, board.name, "rtos", "smp", str(active.version) if active else "", str(image.version), len(data),
        image.digest.hex(),
        tuple(Step(s, texts[s], len(data) if s == "upload" else 0) for s in steps), tuple(reasons),
        (question,) if direct else (),
        facts={
            "old_slot": slot_name(active.slot if active else -1), "new_slot": slot_name(spare),
            "upload_image": state.upload_images.get(spare, 0), "transactional": not direct,
        },
        seen=_summary(image, state, health),
    )  # fmt: skip


def _summary(image: Image, state: DeviceState, health: Health | None) -> str:
    words = [f"signature {image.key_hash.hex()[:8]}"]
    words.append(f"counter {image.security_counter} >= {state.security_counter}")
    if health and health.soc_pct:
        words.insert(0, "battery " + " ".join(f"{k} {v} %" for k, v in health.soc_pct.items()))
    if health and health.hottest_decic is not None:
        words.insert(1, f"{health.hottest_decic / 10:.0f} C")
    return ", ".join(words)


def slot_index(name: object) -> int:
    """The inverse of `slot_name`; -1 for none."""
    return SLOT_NAMES.index(str(name)) if name in SLOT_NAMES else -1


def _spare(state: DeviceState) -> int:
    if state.active:
        return 1 - state.active.slot
    confirmed: SlotImage | None = next((i for i in state.images if i.confirmed), None)
    return 1 - confirmed.slot if confirmed else 0


def _check_age(image: Image, state: DeviceState, wish: Wish) -> None:
    if image.security_counter < state.security_counter:
        raise InputWrong(
            f"the image has security counter {image.security_counter}, the device demands {state.security_counter}",
            hint="the device will never start it: use a newer release",
        )
    active = state.active
    if active and image.version < active.version and not wish.allow_downgrade:
        raise InputWrong(
            f"the image is older ({image.version}) than what runs ({active.version})",
            hint="--allow-downgrade flashes it",
        )


def _check_ar1(image: Image, state: DeviceState) -> None:
    needed = image.ar1_min
    if needed and (state.ar1_version is None or state.ar1_version < replace(needed, build=0)):
        runs = f"it runs {state.ar1_version}" if state.ar1_version else "the device does not say what it runs"
        raise InputWrong(
            f"the image needs AR1 {needed} or newer, {runs}", hint="update the AR1 first, or flash the bundle of both"
        )


def _check_power(board: Board, health: Health | None) -> None:
    if health is None or not health.soc_pct:
        return
    least = board.get("rtos.soc_pct_min", 0)
    best = max(health.soc_pct.values())
    if best < least:
        raise DeviceRefused(
            f"the fuller battery has {best} %, an update needs {least} %", hint="charge the glasses or change a battery"
        )


def check_heat(board: Board, hottest_decic: int | None) -> None:
    """No update in glasses that are about to throttle or to switch off. Raises DeviceRefused."""
    most = board.get("rtos.update_decic_max")
    if hottest_decic is not None and most is not None and hottest_decic > most:
        raise DeviceRefused(
            f"the glasses have {hottest_decic / 10:.0f} C at their hottest, an update needs {most / 10:.0f} C or less",
            hint="let them cool down",
        )
