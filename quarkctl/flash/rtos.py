"""Flash the microcontroller over SMP: upload, verify, test boot, health check, confirm; or tell what was rolled back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from quarkctl import boards, schemas
from quarkctl.boards import Board
from quarkctl.errors import (
    DeviceMissing,
    DeviceRefused,
    InputWrong,
    LinkError,
    LinkLost,
    LinkTimeout,
    ProtocolError,
    QuarkError,
    UsageWrong,
    VerificationFailed,
)
from quarkctl.events import Event, Level
from quarkctl.flash import device, images, rtos_plan
from quarkctl.flash.device import DeviceState
from quarkctl.flash.plan import Job, Plan, Step
from quarkctl.flash.rtos_plan import slot_name
from quarkctl.flash.smp import FRAMINGS, Client
from quarkctl.flash.upload import upload
from quarkctl.formats import elf, mcuboot_image, smp
from quarkctl.formats.schema import Value
from quarkctl.link import Link, reset

#: A quick question to a device that may be in the middle of its start.
_PEEK_S = 0.25
_HEALTH_EVERY_S = 0.2
#: Of a device whose flash was stopped during the trial.
RESETS_MAX = 3
#: A whole slot, sector by sector.
_ERASE_TIMEOUT_S = 40.0
_NO_BOARD = Board("", "", False, {})


class TestBootFailed(VerificationFailed):
    """The new image did not prove itself. ``fault`` holds the crash record where the device kept one."""

    def __init__(self, message: str, hint: str, fault: dict[str, Value] | None) -> None:
        super().__init__(message, hint)
        self.fault = fault


def accepts(sources: Sequence[str]) -> bool:
    """A signed image, or a folder of builds that has one."""
    if len(sources) != 1:
        return False
    try:
        images.load(Path(sources[0]))
    except QuarkError:
        return False
    return True


def prepare(sources: Sequence[str]) -> Callable[[Job], Session]:
    """Raises InputWrong, UsageWrong for sources that are no image."""
    if len(sources) != 1:
        raise UsageWrong(f"one image at a time, not {len(sources)}", hint="a folder of builds means its newest image")
    path = Path(sources[0])
    data, program = images.load(path), images.program_of(path)
    return lambda job: Session(job, data, program)


class Session:
    """One device from the first question to the last answer."""

    def __init__(self, job: Job, data: bytes, program: bytes = b"") -> None:
        """``program`` is the ELF file of the image, if there is one: crash reports then name file and line."""
        self._opener = job.opener
        self._data = data
        self._image = mcuboot_image.parse(data)
        self._wish = job.wish
        self._progress = job.progress
        self._board_name = job.board
        self._schema = schemas.telemetry()
        self._board: Board | None = None
        self._client: Client | None = None
        self._link: Link | None = None
        self._state = DeviceState()
        self._plan = Plan("", "", "", "", "", "", 0, "", ())
        self._start_s = 0.0
        self._selftest = ""
        self._repeated = 0
        self._resumed_at = 0
        self._old_fault = b""
        self._program = program
        self._framing = job.wish.framing or str(self._profile_of(job.board).get("rtos.framing", FRAMINGS[0]))

    def close(self) -> None:
        if self._client:
            self._repeated += self._client.round_trips.repeat_count
        if self._link:
            self._link.close()
        self._link = self._client = None

    @property
    def where(self) -> str:
        return f"serial {self._link.name}" if self._link else ""

    # --- plan ---------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        self._state = self._probe()
        client = self._open()
        self._board = self._profile()
        health = None if self._state.recovery else device.read_health(client)
        self._plan = rtos_plan.make(
            self._image, self._data, self._board, self._opener.identity, self._state, health, self._wish
        )
        return self._plan

    def _probe(self) -> DeviceState:
        """What the device says; one that is silent is reset into its bootloader, where its board has a way to do that."""
        try:
            return device.probe(self._open())
        except LinkTimeout:
            way = str(self._profile_of(self._board_name).get("rtos.enter_bootloader", ""))
            if not way:
                raise
        self._progress(Event(self._opener.identity, "preflight", Level.PROGRESS, "silent: reset into its bootloader"))
        link = self._open().link
        reset.run(cast(reset.Lines, link), way)
        self._client = Client(link, self._framing)
        return device.probe(self._open())

    def _profile_of(self, board: str) -> Board:
        """What is known before the device is asked."""
        return boards.load(board or self._image.board) if board or self._image.board in boards.names() else _NO_BOARD

    def _profile(self) -> Board:
        """The board that the device says it is; the user's word only where the device says nothing."""
        if self._state.board and self._board_name and self._state.board != self._board_name:
            raise InputWrong(f"the device is {self._state.board}, not {self._board_name}", hint="leave --board out")
        if self._state.board and self._state.board not in boards.names():
            raise ProtocolError(
                f"the device calls itself {self._state.board!r}, a board that this quarkctl does not know",
                hint=f"known are {', '.join(boards.names())}",
            )
        return boards.load(self._state.board or self._board_name or self._image.board)

    def _open(self) -> Client:
        if self._client is None:
            self._link = self._opener.open()
            self._client = Client(self._link, self._framing)
        return self._client

    def observe(self) -> DeviceState:
        """Ask the device again. Unlike `plan` this refuses nothing."""
        self._state = device.probe(self._open())
        return self._state

    def health(self) -> device.Health:
        """What the device says of itself now; empty where it has no self-test."""
        health = None if self._state.recovery else device.read_health(self._open())
        return health or device.Health()

    def fell_back(self) -> TestBootFailed:
        """Why the image that was on trial runs no more: by its crash record, or the reason that the device gives."""
        return self._rolled_back(self._state, "did not hold out")

    @property
    def state(self) -> DeviceState:
        """As it was when the device was last asked."""
        return self._state

    @property
    def digest(self) -> bytes:
        """Hash of the image that is to run at the end."""
        return self._image.digest

    # --- act ----------------------------------------------------------------------------------------------------------

    def do(self, step: Step) -> str:
        return {
            "upload": self._upload,
            "verify": self._verify,
            "restart": self._restart,
            "arm": self._arm,
            "start": self._start,
            "revert": self._revert,
            "health": self._health,
            "confirm": self._confirm,
            "compare": self._compare,
        }[step.name]()

    def facts(self) -> dict[str, object]:
        return {
            "repeated_requests": self._repeated + (self._client.round_trips.repeat_count if self._client else 0),
            "resumed_at_bytes": self._resumed_at,
            "first_telemetry_s": round(self._start_s, 3),
            "selftest": self._selftest,
        }

    def interrupted(self, step: Step) -> str:
        """Before the restart nothing has changed but the spare slot; a trial that nobody watches is ended."""
        if step.name in ("upload", "verify", "compare"):
            return "the old image runs; the next flash goes on where the device is"
        with suppress(QuarkError):
            for _ in range(RESETS_MAX):  # the first may start a trial that was asked for; the next ends it
                with suppress(LinkTimeout, LinkLost):
                    self._open().write(smp.Group.OS, smp.Os.RESET, {}, attempts=1)
                self._state = self._wait_for_start(time.monotonic())
                if self._state.active and self._state.active.confirmed:
                    return f"the device was reset: {self._state.active.version} runs and is confirmed"
        return "the device does not say what it runs; a reset rolls back what is not confirmed"

    def _upload(self) -> str:
        client = self._open()
        total, began = len(self._data), time.monotonic()

        def report(done: int, eta_s: float | None) -> None:
            self._progress(Event(self._opener.identity, "upload", Level.PROGRESS, "", done, total, eta_s))

        self._resumed_at = upload(client, self._data, report, int(str(self._plan.facts["upload_image"])))
        sent = total - self._resumed_at
        rate = sent / 1000 / max(time.monotonic() - began, 1e-6)
        resumed = f", from byte {self._resumed_at} on" if self._resumed_at else ""
        return f"{sent / 1000:.1f} kB at {rate:.0f} kB/s{resumed}"

    def _verify(self) -> str:
        slot = rtos_plan.slot_index(self._plan.facts["new_slot"])
        found = next((i for i in device.read_images(self._open()) if i.slot == slot), None)
        if found is None or found.hash != self._image.digest:
            raise VerificationFailed(
                f"slot {slot_name(slot)} does not hold what was sent",
                hint="flash again; the old image still runs",
            )
        digest = self._image.digest.hex()
        return f"slot {slot_name(slot)} sha256 {digest[:4]}..{digest[-4:]}"

    def _compare(self) -> str:
        found = next((i for i in self._state.images if i.hash == self._image.digest), None)
        if found is None:
            there = (
                ", ".join(f"{i.version} in slot {slot_name(i.slot)}" for i in self._state.images) or "no sound image"
            )
            raise VerificationFailed(f"the device does not hold {self._image.version}: it has {there}", hint="flash it")
        words = [w for w, is_so in (("runs", found.active), ("confirmed", found.confirmed)) if is_so]
        return f"{self._image.version} is whole in slot {slot_name(found.slot)}, {', '.join(words) or 'does not run'}"

    def _restart(self) -> str:
        self._arm()
        return self._start()

    def _arm(self) -> str:
        client = self._open()
        # Written where it starts from, it needs no asking, and some servers refuse to be asked.
        with suppress(*([] if self._plan.facts["transactional"] else [DeviceRefused])):
            client.write(smp.Group.IMAGE, smp.ImageCommand.STATE, {"hash": self._image.digest, "confirm": False})
        return f"{self._image.version} starts next, on trial"

    def _start(self) -> str:
        client = self._open()
        self._old_fault = device.read_fault(client)
        # The answer may be lost with the restart that it announces: one attempt, and the boot id tells.
        with suppress(LinkTimeout, LinkLost):
            client.write(smp.Group.OS, smp.Os.RESET, {}, attempts=1)
        began = time.monotonic()
        now = self._wait_for_start(began)
        self._start_s = time.monotonic() - began
        active = now.active
        if active is None or active.hash != self._image.digest:
            raise self._rolled_back(now, "did not survive its start")
        self._state = now
        return f"test boot of {self._image.version}, answers after {self._start_s:.1f} s"

    def _revert(self) -> str:
        """Back to the confirmed image: a trial is ended by a restart, one that is only asked for is withdrawn."""
        now = self.observe()
        running, spare = now.active, next((i for i in now.images if i.hash == self._image.digest), None)
        if running and running == spare and not running.confirmed:
            with suppress(LinkTimeout, LinkLost):
                self._open().write(smp.Group.OS, smp.Os.RESET, {}, attempts=1)
            self._state = now = self._wait_for_start(time.monotonic())
        elif spare and spare.pending:
            self._open().write(smp.Group.IMAGE, smp.ImageCommand.ERASE, {}, timeout_s=_ERASE_TIMEOUT_S)
            now = self.observe()
        if now.active is None or now.active.hash == self._image.digest:
            raise VerificationFailed("the device did not go back to its old image", hint="cycle its power")
        return f"runs {now.active.version}"

    def _wait_for_start(self, began: float) -> DeviceState:
        """Until the device answers with another boot id than before. The port may vanish and come back elsewhere."""
        limit_s = self._need_ms("rtos.start_ms")
        old = self._state.boot_id
        stranger: DeviceState | None = None
        while (waited_s := time.monotonic() - began) < limit_s:
            self._tell("restart", Level.PROGRESS, f"waiting for the device, {waited_s:.0f} s")
            try:
                client = self._open()
                identity = device.read_identity(client, attempts=1, timeout_s=_PEEK_S)
                if identity.get("mode") == "recovery" and not self._state.recovery:
                    return device.probe(client)
                if identity.get("boot_id", old) != old:
                    return device.probe(client)
                if not identity:  # it cannot say that it restarted: what runs must tell
                    stranger = device.probe(client)
                    if stranger.active and stranger.active.hash == self._image.digest:
                        return stranger
                    self._listen(_PEEK_S)
            except LinkTimeout:
                if self._framing == "raw" and self._client:  # the bootloader took raw frames; an image need not
                    self._client = Client(self._client.link, FRAMINGS[self._client.framing == FRAMINGS[0]])
                continue
            except (LinkLost, DeviceMissing):
                self.close()
                time.sleep(0.05)  # nothing to wait on while there is no port
        if stranger:
            return stranger
        raise LinkTimeout(
            f"no answer within {limit_s:.0f} s after the restart",
            hint="reset the device: it goes back to the old image by itself",
        )

    def _health(self) -> str:
        self._selftest = self._self_test()
        return self._selftest

    def _self_test(self) -> str:
        limit_s = self._need_ms("rtos.health_ms")
        began = time.monotonic()
        last = device.Health()
        while True:
            client = self._open()
            try:
                identity = device.read_identity(client)
                health = device.read_health(client)
            except (LinkLost, LinkTimeout):
                raise self._rolled_back(self._wait_for_start(time.monotonic()), "stopped answering") from None
            if identity and identity.get("boot_id") != self._state.boot_id:
                raise self._rolled_back(device.probe(client), "restarted during its test")
            if health is None:
                return "answers; it has no self-test"
            last = health
            if health.good and time.monotonic() - began >= self._settle_s():
                return f"self-test {health.passed}/{health.total}"
            if time.monotonic() - began > limit_s:
                break
            self._tell("health", Level.PROGRESS, f"self-test {health.passed}/{health.total}")
            self._listen(_HEALTH_EVERY_S)
        client = self._open()
        with suppress(LinkTimeout, LinkLost):
            client.write(smp.Group.OS, smp.Os.RESET, {}, attempts=1)
        now = self._wait_for_start(time.monotonic())
        raise self._rolled_back(now, f"self-test {last.passed}/{last.total}, failed: {last.failed or 'unknown'}")

    def _settle_s(self) -> float:
        """A new image has to hold out that long before it may be confirmed."""
        return float(self._board.get("rtos.settle_ms", 1500)) / 1000 if self._board else 1.5

    def _listen(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._open().pump(left)

    def _confirm(self) -> str:
        client = self._open()
        client.write(smp.Group.IMAGE, smp.ImageCommand.STATE, {"hash": self._image.digest, "confirm": True})
        active = next((i for i in device.read_images(client) if i.active), None)
        if active is None or not active.confirmed or active.hash != self._image.digest:
            raise VerificationFailed("the device did not make the image permanent", hint="flash again")
        old, slot = self._plan.old_version, self._plan.facts["old_slot"]
        kept = f"; {old} kept in slot {slot}" if old and slot != self._plan.facts["new_slot"] else ""
        return f"{self._image.version} is permanent{kept}"

    # --- failure ------------------------------------------------------------------------------------------------------

    def _rolled_back(self, now: DeviceState, what: str) -> TestBootFailed:
        fault = self._read_fault()
        reasons = {v: k for k, v in self._schema.enums["rollback_reason"].items()}
        reason = reasons.get(now.rollback_reason, "").replace("_", " ")
        if fault:
            what = describe_fault(fault, self._program)
        elif reason and reason != "none":
            what = f"{what} ({reason})"
        back = f"rolled back to {now.active.version}, which runs" if now.active else "only the bootloader runs"
        self._tell("rollback", Level.NOTE, back)
        return TestBootFailed(
            f"{self._image.version} failed its test boot: {what}",
            f"{back}; " + ("`quarkctl inspect` shows the crash report" if fault else "its log may tell more"),
            fault,
        )

    def _read_fault(self) -> dict[str, Value] | None:
        try:
            record = device.read_fault(self._open())
        except LinkError:
            return None
        message = self._schema.messages["fault"]
        if len(record) != message.size_bytes or record == self._old_fault:
            return None  # none, or one that was there before this trial
        return self._schema.named(message, self._schema.unpack(message, record))

    def _need_ms(self, key: str) -> float:
        return float(self._board.get(key, 10000)) / 1000 if self._board else 10.0

    def _tell(self, step: str, level: Level, text: str = "", total: int = 0) -> None:
        self._progress(Event(self._opener.identity, step, level, text, 0, total))


def describe_fault(fault: dict[str, Value], program: bytes = b"") -> str:
    """One line from a crash record; with the ELF file of the same build, by function, file and line."""
    kind = str(fault["kind"]).replace("_", " ")
    names = {"watchdog": "hang, stopped by the watchdog", "stack overflow": "stack overflow"}
    pc = fault["pc"]
    where = f" at {pc:#010x}" if isinstance(pc, int) and pc else ""
    if isinstance(pc, int) and pc and program and fault.get("build_id") == list(elf.build_id(program)):
        where = f" in {elf.place(program, pc)}" if elf.place(program, pc) else where
    return f"{names.get(kind, f'{kind} fault')} in thread {fault['thread'] or '?'}{where}"
