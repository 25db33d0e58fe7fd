"""The AR1 as one of two chips of an update: its boot loader writes and arms, its system is watched and confirms."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from quarkctl import boards
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
    VerificationFailed,
)
from quarkctl.events import Event, Level
from quarkctl.flash import ar1_slots, fastboot_plan
from quarkctl.flash.ar1_slots import Slots
from quarkctl.flash.ar1_stream import Stream
from quarkctl.flash.ar1_system import Report, System
from quarkctl.flash.chip import Look, Pieces
from quarkctl.flash.fastboot import Client
from quarkctl.flash.plan import Job
from quarkctl.flash.transaction import State
from quarkctl.formats import avb
from quarkctl.formats.bundle import VBMETA, Component, Manifest
from quarkctl.formats.mcuboot_image import Version
from quarkctl.link import Opener

#: From a reset to the boot loader or the system, and from there to self-tests that all pass, where the profile does not say.
START_S, HEALTH_S = 90.0, 60.0
#: One that does not answer may be starting by itself; it is told as missing after that time.
APPEAR_S = 30.0
#: Reports of one start that must be good.
_GOOD_REPORTS = 2
_POLL_S = 0.05
#: Silence of a starting system after which it is looked whether the boot loader kept it.
_REPORT_S = 3.0
_POWER_RESETS = ("power_on", "brownout")


@dataclass(frozen=True)
class Place:
    """A partition of the slot that is written. ``logical``: inside super, only fastbootd knows it."""

    name: str
    logical: bool


class Ar1Chip:
    """``vbmeta`` is the image of that name: the bundle has it in front of the AR1's other images."""

    def __init__(self, job: Job, manifest: Manifest, vbmeta: bytes, loader: Opener, system: Opener) -> None:
        self._job = job
        self._manifest = manifest
        self._release = manifest.chips["ar1"]
        self._vbmeta_image = vbmeta
        self._vbmeta = avb.parse(vbmeta)
        self._digest = hashlib.sha256(vbmeta[: self._vbmeta.size_bytes]).digest()
        self._components = [c for c in manifest.components if c.chip == "ar1" and c.target != VBMETA]
        if not self._components:
            raise InputWrong(f"of the AR1 the bundle has {VBMETA} and nothing that it binds")
        self._slot = ""
        self._places: dict[str, Place] = {}
        self._loader_way, self._system_way = loader, system
        self._lock = loader.hold()
        self._client: Client | None = None
        self._system: System | None = None
        self._board: Board | None = None
        self._boot_id = 0
        self._left: set[str] = set()
        self._took_from_system = False

    @property
    def where(self) -> str:
        link = self._client.link if self._client else self._system.link if self._system else None
        return link.name if link else ""

    def close(self) -> None:
        """A device that was brought into its boot loader, and has nothing to try there, goes back to what it ran."""
        if self._took_from_system and self._client:
            with suppress(QuarkError):
                if self._loader_slots().state(self._digest) is not State.ARMED:
                    self._client.command("reboot")
        self._drop()
        self._lock.release()

    # --- where it is --------------------------------------------------------------------------------------------------

    def _drop(self) -> None:
        for held in (self._client, self._system):
            if held:
                held.link.close()
        self._client = self._system = None

    def _find(self) -> Client | System:
        """The boot loader or the system, whichever answers. Raises DeviceMissing with what both ways say."""
        if self._client:
            return self._client
        if self._system:
            return self._system
        try:
            self._client = Client(self._loader_way.open())
            return self._client
        except LinkError as error:
            first = error
        try:
            self._system = System(self._system_way.open())
        except LinkError as error:
            raise DeviceMissing(
                f"the AR1 is neither in fastboot ({first.message}) nor does its system answer ({error.message})",
                hint=first.hint or error.hint,
            ) from error
        return self._system

    def _note(self, text: str) -> None:
        self._job.progress(Event(self._job.opener.identity, "ar1", Level.NOTE, text))

    def look(self) -> Look:
        """A device that is just starting is waited for."""
        began, told = time.monotonic(), False
        while True:
            try:
                found = self._find()
                return self._loader_look(found) if isinstance(found, Client) else self._system_look(found.report())
            except LinkError as error:  # what was open is no more; another mode may be there soon
                self._drop()
                # A port that is there and silent is that of a system that starts: after a power cut, say.
                starts = isinstance(error, LinkTimeout)
                limit = max(APPEAR_S, self._profile("ar1.start_ms", START_S)) if starts else APPEAR_S
                if time.monotonic() - began > limit:
                    raise
            except ProtocolError:
                self._drop()
                raise
            if not told and time.monotonic() - began > 1.0:
                self._note("waiting for the AR1")
                told = True
            time.sleep(_POLL_S)  # nothing to wait on while there is no port

    def _system_look(self, report: Report) -> Look:
        if report.locked:
            raise DeviceRefused(
                "the AR1 is locked: it takes no images",
                hint="unlock it first: quarkctl ar1 flashing unlock (this erases user data)",
            )
        self._boot_id = report.boot_id
        self._know(report.board)
        slots = report.slots
        settled = slots[slots.settled]
        return Look(
            slots.state(self._digest), slots[slots.running].version, settled.version, report.board,
            rollback_index=settled.rollback_index, hottest_decic=report.hottest_decic,
            power_lost=report.reset_reason in _POWER_RESETS,
        )  # fmt: skip

    def _loader_look(self, client: Client) -> Look:
        variables = client.variables()
        facts = fastboot_plan.read_facts(client.variable, variables)
        fastboot_plan.check_device(facts)
        self._know(facts.product)
        slots = ar1_slots.from_variables(variables)
        stored = variables.get(f"stored-rollback-index:{self._vbmeta.rollback_index_location}", "")
        return Look(
            slots.state(self._digest), slots[slots.active].version, slots[slots.settled].version, facts.product,
            hardware=variables.get("hw-revision", ""), rollback_index=int(stored, 0) if stored else 0,
            power_lost=variables.get("reset-reason", "") in _POWER_RESETS,
        )  # fmt: skip

    def _know(self, board: str) -> None:
        if self._board is None and board in boards.names():
            self._board = boards.load(board)
            if not self._board.get("ar1.fastboot_digest", "") or not self._board.get("ar1.fastboot_trial", ""):
                raise DeviceRefused(
                    f"the boot loader of {board} can neither prove what a slot holds nor try one once",
                    hint="--chip rtos flashes one chip; the AR1's: quarkctl bundle extract, then flash --via fastboot",
                )

    def _loader_slots(self) -> Slots:
        return ar1_slots.from_variables(self._loader().variables())

    def _loader(self) -> Client:
        if self._client is None:
            raise LinkLost("the AR1 is not in its boot loader")
        return self._client

    def _profile(self, key: str, default: float) -> float:
        return float(self._board.get(key, default * 1000)) / 1000 if self._board else default

    # --- ways between the modes ---------------------------------------------------------------------------------------

    def _enter_loader(self) -> Client:
        found = self._find()
        if isinstance(found, System):
            self._took_from_system = True
            found.restart("reboot_bootloader")
            self._drop()
            self._client = self._wait(lambda variables: True)
        elif found.variable("is-userspace") == "yes":
            self._restart_into("reboot-bootloader", "no")
        return self._loader()

    def _restart_into(self, command: str, userspace: str) -> None:
        """From one fastboot to the other. Where the device knows only one, the answer to ``is-userspace`` is empty."""
        self._loader().command(command)
        self._drop()
        self._client = self._wait(lambda variables: variables.get("is-userspace", "no") == userspace)

    def _wait(self, wanted: Callable[[Mapping[str, str]], bool]) -> Client:
        """Until fastboot answers as it is wanted."""
        until = time.monotonic() + self._profile("ar1.start_ms", START_S)
        last = "nothing"
        while time.monotonic() < until:
            try:
                client = Client(self._loader_way.open())
            except LinkError as error:
                last = error.message
            else:
                try:
                    if wanted(client.variables()):
                        return client
                    last = "another mode"
                except (LinkError, ProtocolError) as error:
                    last = error.message
                client.link.close()
            time.sleep(_POLL_S)  # nothing to wait on while there is no port
        raise LinkTimeout(f"the AR1 did not come into fastboot: {last}", hint="look at its console, or cycle its power")

    # --- write --------------------------------------------------------------------------------------------------------

    def write(self, component: Component, pieces: Pieces) -> None:
        if component.target == VBMETA:  # it is here already, and comes last
            return
        if component is self._components[0] or not self._left:
            self._begin()
        try:
            self._flash(component, pieces)
            self._left.discard(component.target)
            if not self._left:
                self._finish()
        except BaseException:
            self._drop()  # in the middle of a transfer: nothing that is said now would be understood
            raise

    def _begin(self) -> None:
        """All that can be known is checked before the first byte; then the slot loses its name."""
        self._left = {c.target for c in self._components}
        client = self._enter_loader()
        variables = client.variables()
        fastboot_plan.check_device(fastboot_plan.read_facts(client.variable, variables))
        self._slot = ar1_slots.from_variables(variables).target(self._digest)
        self._places = {c.target: self._place(c, variables) for c in self._components}
        vbmeta = f"{VBMETA}_{self._slot}"
        if len(self._vbmeta_image) > int(variables.get(f"partition-size:{vbmeta}", "0"), 0):
            raise InputWrong(f"the device has no partition {vbmeta} of {len(self._vbmeta_image)} bytes")
        client.command(f"erase:{vbmeta}", 30.0)
        if any(p.logical for p in self._places.values()):
            self._restart_into("reboot-fastboot", "yes")

    def _place(self, component: Component, variables: Mapping[str, str]) -> Place:
        name = f"{component.target}_{self._slot}"
        if name in variables or f"partition-size:{name}" in variables:
            size = int(variables[f"partition-size:{name}"], 0)
            if component.size_bytes > size:
                raise InputWrong(
                    f"{component.target} has {component.size_bytes} bytes, {name} holds {size}",
                    hint="nothing was written; is the bundle for this board?",
                )
            return Place(name, logical=False)
        if f"partition-size:{component.target}" in variables or "partition-size:super" not in variables:
            raise InputWrong(
                f"{component.target} has no slots on the device: what runs would be written over",
                hint="a bundle for updates names slotted and logical partitions only",
            )
        return Place(name, logical=True)

    def _flash(self, component: Component, pieces: Pieces) -> None:
        client, place = self._loader(), self._places[component.target]
        if place.logical:
            self._make_room(client, place.name, component.size_bytes)
        limit = client.number("max-download-size")
        for piece in Stream(component, pieces, self._manifest).downloads(limit):
            client.download(piece.parts(), piece.size_bytes)
            if piece.failure:
                raise piece.failure
            client.flash(place.name, component.size_bytes)
        self._verify(component, place)

    def _make_room(self, client: Client, name: str, size_bytes: int) -> None:
        """A logical partition of the slot that does not run, as large as its image."""
        size = -(-size_bytes // 4096) * 4096
        there = client.variable(f"partition-size:{name}")
        if not there:
            client.command(f"create-logical-partition:{name}:{size}", 30.0)
        elif int(there, 0) != size:
            client.command(f"resize-logical-partition:{name}:{size}", 30.0)

    def _verify(self, component: Component, place: Place) -> None:
        """Each run of data by its digest on the device. What that cannot tell is bound by vbmeta: the trial proves it."""
        command = str(self._board.get("ar1.fastboot_digest")) if self._board else ""
        for extent in component.extents:
            member = self._manifest.member(extent.member)
            try:
                said = self._loader().command(
                    f"{command} {place.name} {extent.offset_bytes:#x} {member.size_bytes:#x}",
                    30.0 + member.size_bytes / (1 << 20),
                )
            except DeviceRefused:
                if self._vbmeta.descriptor(component.target):
                    return
                raise
            if member.sha256.hex() not in (line.strip().lower() for line in [*said.lines, said.text]):
                raise VerificationFailed(
                    f"{place.name} does not hold what was sent: {member.size_bytes} bytes at {extent.offset_bytes} differ",
                    hint="flash again; if it happens again try another cable or port",
                )

    def _finish(self) -> None:
        """Only now the slot gets its name."""
        client = self._loader()
        client.download([self._vbmeta_image], len(self._vbmeta_image))
        client.flash(f"{VBMETA}_{self._slot}", len(self._vbmeta_image))
        self._enter_loader()
        if not self._loader_slots()[self._slot].holds(self._digest):
            raise VerificationFailed(f"slot {self._slot} of the AR1 does not hold what was sent", hint="flash again")

    # --- try ----------------------------------------------------------------------------------------------------------

    def arm(self) -> str:
        found = self._find()
        if isinstance(found, System):
            slot = found.report().slots.target(self._digest)
            found.ask("trial")
        else:
            client = self._enter_loader()
            slot = self._loader_slots().target(self._digest)
            client.command(f"{self._board.get('ar1.fastboot_trial') if self._board else ''} {slot}", 30.0)
        return f"slot {slot} starts next, on trial"

    def restart(self) -> str:
        found, began = self._find(), time.monotonic()
        with suppress(LinkLost, LinkTimeout):  # the answer may be lost with the restart that it announces
            if isinstance(found, Client):
                found.command("reboot")
            else:
                self._boot_id = found.report().boot_id
                found.restart()
        self._drop()
        self._took_from_system = False
        report = self._wait_for_system()
        if report.slots.state(self._digest) not in (State.TRIAL, State.CONFIRMED):
            raise self._fell_back(report, "did not survive its start")
        version = report.slots[report.slots.running].version
        return f"test boot of {version or 'slot ' + report.slots.running}, after {time.monotonic() - began:.1f} s"

    def _wait_for_system(self) -> Report:
        """Until the system says something under another boot id; the boot loader that has nothing to start ends it, too."""
        limit = self._profile("ar1.start_ms", START_S)
        until = time.monotonic() + limit
        while time.monotonic() < until:
            try:
                self._system = System(self._system_way.open())
                report = self._system.report(_REPORT_S)
                if report.boot_id != self._boot_id:
                    self._boot_id = report.boot_id
                    return report
            except LinkError:
                pass
            self._drop()
            failure = self._kept()
            if failure:
                raise VerificationFailed(f"the AR1 stays in its boot loader: {failure}", hint="flash again")
            time.sleep(_POLL_S)  # nothing to wait on while there is no port
        raise LinkTimeout(
            f"the AR1's system does not answer within {limit:.0f} s after the restart",
            hint="cycle its power: it goes back to the old image by itself",
        )

    def _kept(self) -> str:
        """Why the boot loader does not start anything; empty while it is not there, or has not tried."""
        try:
            client = Client(self._loader_way.open())
        except LinkError:
            return ""
        try:
            return client.variable("boot-failure")
        except (LinkError, ProtocolError):
            return ""
        finally:
            client.link.close()

    def check(self) -> str:
        limit = self._profile("ar1.health_ms", HEALTH_S)
        until = time.monotonic() + limit
        good = 0
        while True:
            report = self._watched()
            good = good + 1 if report.healthy else 0
            if good >= _GOOD_REPORTS:
                found = f", verified partitions {report.verity_state}" if report.verity_state != "none" else ""
                return f"self-test {report.selftest_passed}/{report.selftest_count}{found}"
            if time.monotonic() > until or report.verity_state == "failed":
                break
            self._note(f"self-test {report.selftest_passed}/{report.selftest_count}")
        what = f"self-test {report.selftest_passed}/{report.selftest_count}"
        if report.verity_failed_blocks:
            what += f", {report.verity_failed_blocks} blocks are not what was signed"
        raise VerificationFailed(f"ar1 {self._release.version} failed its test boot: {what}")

    def _watched(self) -> Report:
        """A report of the start that is on trial. Raises where the system went away, or another one runs."""
        try:
            found = self._find()
            if isinstance(found, Client):
                raise VerificationFailed(f"the AR1 went into its boot loader: {found.variable('boot-failure')}")
            report = found.report()
        except (LinkLost, LinkTimeout, DeviceMissing):
            self._drop()
            report = self._wait_for_system()
        if report.slots.state(self._digest) not in (State.TRIAL, State.CONFIRMED):
            raise self._fell_back(report, "restarted during its test")
        return report

    def confirm(self) -> str:
        found = self._find()
        if isinstance(found, Client):
            raise VerificationFailed("the AR1 is in its boot loader: only its running system confirms")
        found.ask("confirm")
        return f"{self._release.version} is permanent"

    def revert(self) -> str:
        """A trial is ended by a restart, one that is only asked for is withdrawn."""
        found = self._find()
        if isinstance(found, Client):
            if self._loader_slots().state(self._digest) is State.ARMED:
                self._enter_loader().command("oem untrial", 30.0)
            return "the old image starts next"
        report = found.report()
        state = report.slots.state(self._digest)
        if state is State.ARMED:
            found.ask("untrial")
        elif state is State.TRIAL:
            self._boot_id = report.boot_id
            if report.slots[report.slots.running].tries:  # somebody else gave it more than one
                self._enter_loader().command("oem untrial", 30.0)
                self._loader().command("reboot")
            else:
                found.restart()
            self._drop()
            self._took_from_system = False
            report = self._wait_for_system()
            if report.slots.state(self._digest) is State.TRIAL:
                raise VerificationFailed("the AR1 did not go back to its old image", hint="cycle its power")
        version: Version | None = report.slots[report.slots.running].version
        return f"runs {version or 'slot ' + report.slots.running}"

    def fell_back(self) -> QuarkError:
        with suppress(QuarkError):
            found = self._find()
            if isinstance(found, System):
                return self._fell_back(found.report(), "did not hold out")
            reason = self._loader_slots()[self._loader_slots().target(self._digest)].reason
            return VerificationFailed(f"ar1 {self._release.version} failed its test boot: {reason or 'it fell back'}")
        return VerificationFailed(f"ar1 {self._release.version} failed its test boot")

    def _fell_back(self, report: Report, what: str) -> VerificationFailed:
        reason = report.rollback_reason.replace("_", " ")
        why = f"{what} ({reason})" if reason not in ("none", "") else what
        runs = report.slots[report.slots.running].version
        return VerificationFailed(
            f"ar1 {self._release.version} failed its test boot: {why}",
            hint=f"rolled back to {runs or 'slot ' + report.slots.running}, which runs",
        )
