"""Flash the AR1 in fastboot: write the inactive slot, verify what the device can prove, activate it last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from quarkctl.errors import DeviceRefused, QuarkError, VerificationFailed
from quarkctl.events import Event, Level
from quarkctl.flash import fastboot, fastboot_plan, fastboot_xml, split
from quarkctl.flash.ar1_image import Image
from quarkctl.flash.background import Background
from quarkctl.flash.fastboot import Client
from quarkctl.flash.fastboot_pieces import Piece, Written, cut
from quarkctl.flash.fastboot_plan import DeviceFacts, Item, Target
from quarkctl.flash.plan import Job, Plan, Step
from quarkctl.flash.progress import Meter
from quarkctl.link import Link
from quarkctl.link.ar1 import FASTBOOT, expect, mode_of_link, reopen

_SUFFIXES = frozenset({".img", ".simg"})
#: Digests are asked for in pieces: one long request looks like a hang.
WINDOW_BYTES = 64 << 20


def accepts(sources: Sequence[str]) -> bool:
    """Image files, or a folder of them."""
    if len(sources) == 1 and Path(sources[0]).is_dir():
        return any(Path(split.whole_name(p)).suffix in _SUFFIXES for p in Path(sources[0]).iterdir())
    return all(Path(split.whole_name(Path(s.rpartition("@")[0] or s))).suffix in _SUFFIXES for s in sources)


def adapts(sources: Sequence[str]) -> bool:
    """XML that says to which partitions images go: made for emergency download, and possible where the device is here."""
    return fastboot_xml.accepts(sources)


def prepare(sources: Sequence[str]) -> Callable[[Job], Session]:
    """Raises InputWrong for images that are damaged or missing, and for XML that asks for what fastboot cannot do."""
    if fastboot_xml.accepts(sources):
        found, left_out = fastboot_xml.read(sources)
        return lambda job: Session(job, found, left_out)
    items = [Item(name, Image(path)) for path, name in fastboot_plan.parse_sources(sources, _SUFFIXES)]
    return lambda job: Session(job, items)


class Session:
    """One device from the first question to the last answer."""

    def __init__(self, job: Job, items: Sequence[Item], left_out: Sequence[str] = ()) -> None:
        self._job = job
        self._wish = job.wish.ar1
        self._items = items
        self._left_out = left_out
        self._link: Link | None = None
        self._facts: DeviceFacts
        self._everything: dict[str, str] = {}
        self._targets: dict[str, Target] = {}
        self._digest_command = ""
        self._piece_limit = 0
        self._verified: dict[str, str] = {}
        self._skipped_bytes = 0

    @property
    def where(self) -> str:
        return self._link.name if self._link else ""

    def close(self) -> None:
        if self._link:
            self._link.close()
            self._link = None
        for item in self._items:
            item.image.close()

    def _client(self) -> Client:
        if self._link is None:
            link = self._job.opener.open()
            expect(link, FASTBOOT)
            self._link = link
        return Client(self._link, self._note)

    def _note(self, text: str) -> None:
        self._job.progress(Event(self._job.opener.identity, "device", Level.NOTE, text))

    # --- plan ---------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        self._look()
        fastboot_plan.check_device(self._facts)
        board = fastboot_plan.profile(self._facts, self._job.board)
        found = fastboot_plan.targets(self._items, self._facts, self._wish, self._variable)
        self._targets = {t.name: t for t in found}
        self._digest_command = str(board.get("ar1.fastboot_digest", "")) if board else ""
        written = {t.partition[:-2] for t in found if t.slotted}
        missing = sorted(self._facts.slotted - written) or (
            [] if self._facts.slotted else ["partitions, which it does not list"]
        )
        made = fastboot_plan.make(
            self._job.opener.identity,
            self._facts,
            found,
            self._wish,
            board.name if board else self._facts.product,
            missing,
            self._left_out,
        )
        if self._job.wish.verify_only:
            text = f"compare {', '.join(self._targets)}; write nothing"
            return replace(made, steps=(Step("compare", text, made.size_bytes),), reasons=(), questions=())
        return made

    def _look(self) -> None:
        client = Client(self._client().link)
        self._everything = client.variables()
        self._facts = fastboot_plan.read_facts(client.variable, self._everything)
        self._piece_limit = self._facts.max_download_bytes

    def _variable(self, name: str) -> str:
        return self._everything[name] if name in self._everything else Client(self._client().link).variable(name)

    # --- act ----------------------------------------------------------------------------------------------------------

    def do(self, step: Step) -> str:
        verb, _, name = step.name.partition(" ")
        if verb == "flash":
            return self._flash(step, self._targets[name])
        if verb == "compare":
            return self._compare()
        return {"fastbootd": self._fastbootd, "activate": self._activate, "restart": self._restart}[verb]()

    def facts(self) -> dict[str, object]:
        return {"verified": self._verified, "skipped_bytes": self._skipped_bytes}

    def interrupted(self, step: Step) -> str:
        if step.name.startswith("flash"):
            return (
                f"{step.name.partition(' ')[2]} is half written; no slot was activated. Repeat the command: it goes on"
            )
        return f"stopped in {step.name}; nothing is half written"

    def _fastbootd(self) -> str:
        """Everything is read anew there: it may take less at once, and it knows more partitions."""
        client = self._client()
        client.command("reboot-fastboot")
        client.link.close()
        self._link = None
        self._link = reopen(self._job.opener, _is_fastbootd)
        try:
            self._look()
            fastboot_plan.check_device(self._facts)
            found = fastboot_plan.targets(self._items, self._facts, self._wish, self._variable)
        except QuarkError as error:
            where = "stays in fastbootd"
            with suppress(QuarkError):
                self._client().command("reboot-bootloader")
                where = "goes back to its boot loader"
            error.hint = f"{error.hint}; nothing was written, and the device {where}".removeprefix("; ")
            raise
        self._targets = {t.name: t for t in found}
        return f"{len(self._facts.logical)} logical partitions"

    def _activate(self) -> str:
        slot = next(t.partition[-1] for t in self._targets.values() if t.slotted)
        self._client().command(f"set_active:{slot}", fastboot.START_S)
        return f"slot {slot} boots next"

    def _restart(self) -> str:
        self._client().command("reboot")
        return "restarts into the system"

    # --- one partition ------------------------------------------------------------------------------------------------

    def _flash(self, step: Step, target: Target) -> str:
        client, image = self._client(), target.image
        if self._wish.erase_first and target is self._first_of(target.partition):
            client.command(f"erase:{target.partition}", fastboot.START_S + target.size_bytes / (1 << 20))
        if not self._job.wish.force and not self._wish.erase_first and self._holds(target):
            self._skipped_bytes += target.written_bytes
            self._verified[target.name] = "digest"
            return f"{target.partition} holds it already"
        pieces = cut(image, self._piece_limit, target.offset_bytes)
        done = self._done_before(step, pieces)
        meter = Meter(self._job.progress, self._job.opener.identity, step, sum(p.size_bytes for p in pieces))
        meter.skip(sum(p.size_bytes for p in pieces[: len(done)]))
        if len(pieces) == 1:
            self._one_piece(client, target, pieces[0], meter, "")
        else:
            self._all_pieces(client, target, pieces, done, meter)
        how = self._verify(target) if self._wish.verify else "not verified, as you wish"
        return f"{image.size_bytes} bytes in {len(pieces)} pieces, {how}" if len(pieces) > 1 else how

    def _first_of(self, partition: str) -> Target:
        """Its first image: only before that one it is erased."""
        return next(t for t in self._targets.values() if t.partition == partition)

    def _all_pieces(
        self, client: Client, target: Target, pieces: Sequence[Piece], done: Sequence[str], meter: Meter
    ) -> None:
        journal = self._job.journal
        written = Written(lambda d: journal.note(pieces={"partition": target.name, "digests": d}), done)
        all_done = False
        try:
            for number, piece in enumerate(pieces[len(done) :], len(done) + 1):
                self._one_piece(client, target, piece, meter, f"{number}/{len(pieces)}")
                written.add(piece)
            all_done = True
        finally:
            written.close(all_done=all_done)
        journal.note(pieces=None)

    def _one_piece(self, client: Client, target: Target, piece: Piece, meter: Meter, name: str) -> None:
        meter.label(name)
        before = meter.done_bytes
        client.download(piece.parts(), piece.size_bytes, lambda sent: meter.at(before + sent))
        client.flash(target.partition, target.image.size_bytes)

    def _done_before(self, step: Step, pieces: Sequence[Piece]) -> list[str]:
        """Digests of the pieces that an interrupted run has written already, as its journal says and they prove."""
        before = self._job.journal.unfinished
        if before is None or before.step != step.name or self._job.wish.force:
            return []
        said = before.notes.get("pieces")
        if not isinstance(said, dict) or said.get("partition") != step.name.partition(" ")[2]:
            return []
        digests = said.get("digests")
        if not isinstance(digests, list):
            return []
        same: list[str] = []
        for piece, digest in zip(pieces, digests, strict=False):
            if piece.digest() != digest:
                break
            same.append(digest)
        self._skipped_bytes += sum(p.size_bytes for p in pieces[: len(same)])
        return same

    # --- proof --------------------------------------------------------------------------------------------------------

    def _ranges(self, target: Target) -> list[tuple[int, int]]:
        return [
            (at, min(WINDOW_BYTES, extent.offset + extent.size_bytes - at))
            for extent in target.image.extents
            for at in range(extent.offset, extent.offset + extent.size_bytes, WINDOW_BYTES)
        ]

    def _device_digest(self, target: Target, offset: int, size_bytes: int) -> str:
        """Empty where the device does not know such a command, or not for this partition."""
        if not self._digest_command:
            return ""
        try:
            place = f"{target.partition} {target.offset_bytes + offset:#x}"
            command = f"{self._digest_command} {place} {size_bytes:#x}"
            answer = Client(self._client().link).command(command, fastboot.START_S + size_bytes / (1 << 20))
        except DeviceRefused:
            return ""
        return next((line.strip().lower() for line in [*answer.lines, answer.text] if len(line.strip()) == 64), "")

    def _holds(self, target: Target) -> bool:
        """Is it there already? Only asked where few questions answer it."""
        ranges = self._ranges(target)
        if not self._digest_command or len(ranges) > 256:
            return False
        return all(
            self._device_digest(target, offset, size) == target.image.digest(offset, size).hex()
            for offset, size in ranges
        )

    def _compare(self) -> str:
        """Raises VerificationFailed, and DeviceRefused where the boot loader cannot prove what a partition holds."""
        for target in self._targets.values():
            self._verify(target, "write it: the same command without --verify-only")
            if self._verified[target.name] != "digest":
                raise DeviceRefused(
                    f"this boot loader cannot prove what {target.partition} holds", hint="EDL can read it: --via edl"
                )
        return f"{', '.join(self._targets)}: as in the files"

    def _verify(
        self,
        target: Target,
        hint: str = "no slot was activated; repeat the command, and if it happens again try another cable or port",
    ) -> str:
        """Raises VerificationFailed; says it where nothing could be compared."""
        ranges = self._ranges(target)
        expected = Background(lambda: [target.image.digest(offset, size).hex() for offset, size in ranges])
        for number, (offset, size) in enumerate(ranges):
            actual = self._device_digest(target, offset, size)
            if not actual:
                self._verified[target.name] = "not verifiable"
                return "written; this boot loader cannot prove it"
            if actual != expected.result()[number]:
                raise VerificationFailed(
                    f"{target.name} does not hold what is in the file: {size} bytes at {offset} differ", hint=hint
                )
        self._verified[target.name] = "digest"
        return "verified by digest"


def _is_fastbootd(link: Link) -> bool:
    return mode_of_link(link) == FASTBOOT and Client(link).variable("is-userspace") == "yes"
