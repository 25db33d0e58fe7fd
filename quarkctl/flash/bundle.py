"""Flash a release bundle: both chips or neither (see `transaction`), streaming, nothing unverified sent."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from quarkctl import boards
from quarkctl.boards import trust
from quarkctl.errors import DeviceRefused, InputWrong, ProtocolError, QuarkError, UsageWrong, VerificationFailed
from quarkctl.events import Event, Level
from quarkctl.flash import rtos_plan, transaction
from quarkctl.flash.background import ahead
from quarkctl.flash.chip import Chip, Look, Pieces
from quarkctl.flash.plan import Job, Plan, Step
from quarkctl.flash.source import Source, is_url, open_source
from quarkctl.flash.transaction import Act, State, Who
from quarkctl.formats import archive, bundle
from quarkctl.formats.bundle import VBMETA, Component, Member
from quarkctl.formats.bundle_reader import Reader
from quarkctl.formats.mcuboot_image import Version
from quarkctl.link.ar1 import LOADER, SYSTEM
from quarkctl.link.severable import SeverableOpener

#: Files up to this size are verified whole before a device is touched; of larger ones every chunk before it is sent.
VERIFY_FIRST_BYTES = 64 << 20
#: The image of a microcontroller is kept in memory while the AR1 is written beside it.
RTOS_BYTES_MAX = 64 << 20
#: Verified before they are wanted, while the device is busy with those before them.
CHUNKS_AHEAD = 4

#: A table of what verified boot checks has 64 KiB.
VBMETA_BYTES_MAX = 1 << 20

#: Makes the chips of a bundle, from the images in front; the last one is called with the bytes that the rtos has got.
ChipMaker = Callable[[Job, "Incoming", Callable[[int], None]], Mapping[str, Chip]]


def accepts(sources: Sequence[str]) -> bool:
    """A pipe, an address, or a file that begins as a bundle does."""
    if len(sources) != 1:
        return False
    if sources[0] == "-" or is_url(sources[0]):
        return True
    try:
        with Path(sources[0]).open("rb") as file:
            start = file.read(archive.LOCAL.size + len(bundle.MANIFEST_NAME))
    except OSError:
        return False
    return archive.looks_like(start) or sources[0].endswith(bundle.SUFFIX)


def prepare(sources: Sequence[str]) -> Callable[[Job], Session]:
    """Reads and verifies all that stands in front of the images, and small files to their end. Raises InputWrong.

    A file or address is opened anew for each session: several devices may be flashed with it, at the same time.
    """
    if len(sources) != 1:
        raise UsageWrong(f"one bundle at a time, not {len(sources)}")
    checked = Incoming(sources[0], whole=True)
    if checked.rereadable:
        checked.close()

    def session(job: Job) -> Session:
        incoming = Incoming(sources[0]) if checked.rereadable else checked
        try:
            return Session(job, incoming)
        except QuarkError:
            incoming.close()
            raise

    return session


class Incoming:
    """A bundle on its way in: the manifest at once, then the images in front (the microcontroller's, and the AR1's vbmeta,
    which names all the others), the rest as the AR1 takes it.

    ``whole``: also verify all of it now, if it is small and can be read again. ``ended``: it was read to its end.
    """

    def __init__(self, name: str, *, whole: bool = False) -> None:
        self.name = name
        try:
            self._begin()
            self.rereadable = self._source.rereadable
            if whole and self.rereadable and 0 < self._source.size_bytes <= VERIFY_FIRST_BYTES:
                self.pour({})
                self.close()
                self._begin()
            self.front = self._read_front()
        except QuarkError as error:
            self.close()
            if not error.message.startswith(name) and name != "-":
                error.message = f"{name}: {error.message}"
            error.hint = error.hint or "nothing was sent; get the bundle again, or have it built again"
            raise

    def _begin(self) -> None:
        self._source: Source = open_source(self.name)
        self._reader = Reader(self._source.read)
        head = self._reader.head()
        self.manifest, self.trusted, self.signed = trust.open_bundle(head)
        self.digest = hashlib.sha256(head.envelope.payload).hexdigest()
        self._reader.begin(self.manifest)
        self._head_entries = head.entries
        entries = [*head.entries, *(m.entry for m in self.manifest.members)]
        size = sum(len(archive.local_header(e)) + e.size_bytes for e in entries) + len(archive.directory(entries))
        if self._source.size_bytes and self._source.size_bytes != size:
            raise InputWrong(
                f"the bundle has {self._source.size_bytes} bytes, its manifest makes {size}", hint="get it again"
            )
        self._members: Iterator[Member] = iter(self.manifest.members)
        self.ended = False

    def _read_front(self) -> dict[str, bytes]:
        """{chip: its first image}, and all that stands before them. They are kept in memory."""
        wanted: dict[str, tuple[Component, int]] = {}
        for c in self.manifest.components:
            if c.chip == "rtos" or c.target == VBMETA:
                wanted[c.extents[0].member] = (c, RTOS_BYTES_MAX if c.chip == "rtos" else VBMETA_BYTES_MAX)
        images = {e.member for c in self.manifest.components for e in c.extents}
        front: dict[str, bytes] = {}
        for member in self._members:
            if member.name not in images:
                self._reader.skip(member)
            elif member.name in wanted:
                component, most = wanted.pop(member.name)
                if member.size_bytes > most or len(component.extents) != 1:
                    raise InputWrong(f"{member.name} has {member.size_bytes} bytes: too many for {component.target}")
                front[component.chip] = b"".join(self._reader.chunks(member))
            else:
                self._members = iter([member, *self._members])
                break
        if wanted:
            raise InputWrong(f"{next(iter(wanted))} does not stand in front of the other images")
        return front

    def places(self) -> Mapping[str, tuple[Member, int]]:
        """{name: (member, where its bytes begin in the file)}, for whoever reads here and there and verifies himself."""
        found: dict[str, tuple[Member, int]] = {}
        at = sum(len(archive.local_header(e)) + e.size_bytes for e in self._head_entries)
        for member in self.manifest.members:
            at += len(archive.local_header(member.entry))
            found[member.name] = (member, at)
            at += member.size_bytes
        return found

    def pour(self, takers: Mapping[str, Callable[[Component, Pieces], None]]) -> None:
        """Read on to the end; each component goes to the taker of its chip, what has none is only verified.

        A second time reads the bundle anew. Raises InputWrong where it cannot be.
        """
        if self.ended:
            if not self.rereadable:
                raise InputWrong("the bundle came by a pipe and cannot be read again", hint="flash it again")
            before = self.digest
            self.close()
            self._begin()
            if self.digest != before:
                raise InputWrong(f"{self.name} has changed", hint="flash again")
        owner = {e.member: (c, e) for c in self.manifest.components for e in c.extents}
        pending = deque(self._members)
        self._members = iter(())
        while pending:
            member = pending.popleft()
            component = owner[member.name][0] if member.name in owner else None
            take = takers.get(component.chip) if component else None
            if component is None or take is None:
                self._reader.skip(member)
                continue
            mine = [member]
            while pending and pending[0].name in owner and owner[pending[0].name][0] is component:
                mine.append(pending.popleft())
            verified = self._pieces([(m, owner[m.name][1].offset_bytes) for m in mine])
            with closing(ahead(verified, CHUNKS_AHEAD)) as pieces:
                take(component, pieces)
                for _ in pieces:  # whatever was not wanted of it
                    continue
        self._reader.finish()
        self.ended = True

    def _pieces(self, members: Sequence[tuple[Member, int]]) -> Pieces:
        for member, start in members:
            at = start
            for chunk in self._reader.chunks(member):
                yield at, chunk
                at += len(chunk)

    def close(self) -> None:
        with suppress(AttributeError):
            self._source.close()


class Session:
    """One pair of glasses from the first question to the last answer."""

    def __init__(self, job: Job, incoming: Incoming, make_chips: ChipMaker | None = None) -> None:
        if job.wish.force:
            raise UsageWrong("--force is for single images: a bundle is written where it is not")
        self._job = job
        self._incoming = incoming
        self._manifest = incoming.manifest
        wanted = [job.chip] if job.chip else list(self._manifest.chips)
        self._releases = {name: r for name, r in self._manifest.chips.items() if name in wanted}
        if not self._releases:
            raise InputWrong(f"the bundle has nothing for the {job.chip}", hint="leave --chip out")
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._total = 0
        maker = make_chips or chips_of
        self._severed = threading.Event()
        severable = replace(job, opener=SeverableOpener(job.opener, self._severed))
        self._chips = dict(maker(severable, incoming, lambda done: self._report("rtos", done)))
        self._looks: dict[str, Look] = {}
        self._first, self._second = (*self._releases, "")[:2]
        self._begun: dict[str, State] = {}
        self._committed = False
        self._tried_again = False
        self._notes: list[str] = []

    @property
    def where(self) -> str:
        return ", ".join(c.where for n, c in self._chips.items() if n in self._releases)

    def close(self) -> None:
        for chip in self._chips.values():
            chip.close()
        self._incoming.close()

    # --- plan ---------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        self._look_again()
        self._begun = {name: look.state for name, look in self._looks.items()}
        board = self._board_name()
        reasons: list[str] = []
        questions: list[str] = []
        self._check_board(board)
        for name in self._releases:
            self._check_age(name)
        self._check_partners(reasons)
        lockstep = self._choose_order()
        acts = transaction.route(self._pair())
        if acts:
            self._check_fitness(board)
        if lockstep and any(act is Act.CONFIRM for act, _ in acts):
            questions.append(
                f"neither of {self._words(new=True)} runs beside the other's old version: if the power fails in one of "
                "three short moments, the glasses stay mixed until the next flash. Go on?"
            )
        steps = tuple(self._step(act, who) for act, who in acts)
        if self._job.wish.verify_only:
            steps, questions = (Step("compare", "compare what both chips run; write nothing"),), []
        elif not steps:
            reasons.insert(0, f"this release runs already and is confirmed: {self._words(new=True)}")
        size = sum(self._size_of(n) for n in self._releases)
        signed = ", ".join(f"{k.name} {k.key_id[:8]}" for k in self._incoming.signed)
        words = [f"signed by {signed}"]
        packs = self._packs()
        words += ["battery " + " ".join(f"{k} {v} %" for k, v in packs.items())] if packs else []
        words += [f"{look.hottest_decic / 10:.0f} C" for look in self._looks.values() if look.hottest_decic is not None]
        return Plan(
            self._job.opener.identity, board, "+".join(self._releases), "bundle", self._words(new=False),
            self._words(new=True), size, self._incoming.digest, steps, tuple(reasons), tuple(questions),
            facts={
                "preflight": ", ".join(words), "release": self._manifest.version,
                "order": [n for n in (self._first, self._second) if n], "lockstep": lockstep,
                "states": {n: look.state.value for n, look in self._looks.items()},
            },
        )  # fmt: skip

    def _board_name(self) -> str:
        said = {look.board for look in self._looks.values() if look.board}
        if len(said) > 1:
            raise ProtocolError(f"the chips say that they are of {' and '.join(sorted(said))}", hint="check the cables")
        return next(iter(said), self._job.board or self._manifest.product)

    def _check_board(self, board: str) -> None:
        m = self._manifest
        if board != m.product:
            raise InputWrong(f"the bundle is for {m.product}, the device is {board}", hint="take the bundle for it")
        if m.hardware:
            revisions = {look.hardware for look in self._looks.values() if look.hardware}
            listed = ", ".join(m.hardware)
            if not revisions:
                raise DeviceRefused(
                    f"the bundle is for hardware {listed}, the device does not say what it is",
                    hint="take a release for all revisions; or a boot loader that tells hw-revision",
                )
            if not revisions <= set(m.hardware):
                raise InputWrong(
                    f"the bundle is for hardware {listed}, the device is {', '.join(sorted(revisions))}",
                    hint="take the bundle for it",
                )

    def _check_age(self, name: str) -> None:
        release, look = self._releases[name], self._looks[name]
        if release.rollback_index < look.rollback_index:
            raise InputWrong(
                f"{name} {release.version} has rollback index {release.rollback_index}, the device demands "
                f"{look.rollback_index}",
                hint="the device will never start it: use a newer release",
            )
        old = look.settled
        if old and release.version < old and not self._job.wish.allow_downgrade:
            raise InputWrong(
                f"the bundle has {name} {release.version}, older than {old}, which runs",
                hint="--allow-downgrade flashes it",
            )

    def _check_partners(self, reasons: list[str]) -> None:
        """A chip that stays as it is must be one that the new version of the other may run beside."""
        staying = {n: look.settled for n, look in self._looks.items() if n not in self._releases and look.settled}
        new = {n: r.version for n, r in self._releases.items()}
        if staying and not self._manifest.allows({**staying, **new}):
            beside = ", ".join(f"{n} {v}" for n, v in staying.items())
            raise InputWrong(
                f"{self._words(new=True)} must not run beside {beside}", hint="flash both: leave --chip out"
            )
        for name, release in self._releases.items():
            for other, least in release.needs.items():
                if other not in self._looks:
                    reasons.append(f"{name} needs {other} {least} or newer; what runs there is not known")

    def _choose_order(self) -> bool:
        """Which chip is first (see `transaction`). True where neither can be without a moment of risk."""
        if len(self._releases) < 2:
            return False
        old = {n: look.settled for n, look in self._looks.items()}
        new = {n: r.version for n, r in self._releases.items()}
        names = list(self._releases)
        for first, second in (names, names[::-1]):
            before: Version | None = old[second]
            if before is None or before == new[second] or self._manifest.allows({first: new[first], second: before}):
                self._first, self._second = first, second
                return False
        return True

    def _check_fitness(self, board: str) -> None:
        """One pack alone must carry the update to its end, since the other may be swapped; and nothing may be too hot."""
        if board not in boards.names():
            return
        profile = boards.load(board)
        for look in self._looks.values():
            rtos_plan.check_heat(profile, look.hottest_decic)
        packs = self._packs()
        if not packs:
            return
        writes = [n for n in self._releases if self._looks[n].state is State.OLD]
        seconds = sum(self._size_of(n) / 1000 / profile.get(f"{n}.update_kb_s", 30) for n in writes)
        drawn_pct = 100 * profile.get("bundle.update_ma", 0) * seconds / 3600 / profile.get("product.pack_mah", 280)
        least = profile.get("rtos.soc_pct_min", 0) + round(drawn_pct)
        best = max(packs.values())
        if best < least:
            raise DeviceRefused(
                f"the fuller battery has {best} %, this update needs {least} % in one",
                hint="charge the glasses or change a battery; what is written already stays",
            )

    # --- act ----------------------------------------------------------------------------------------------------------

    def do(self, step: Step) -> str:
        if step.name == "compare":
            return self._compare()
        word, _, name = step.name.partition(" ")
        act = Act(word)
        who = Who.BOTH if not name else Who.FIRST if name == self._first else Who.SECOND
        goal = transaction.after(self._pair(), act, who)
        try:
            return self._act(act, who)
        except QuarkError as error:
            return self._failed(error, act, who, goal)

    def facts(self) -> dict[str, object]:
        return {"notes": list(self._notes), "runs": {n: str(v) for n, v in self._running().items()}}

    def interrupted(self, step: Step) -> str:
        if self._committed:
            return "one chip has the new version for good: flash again, and the other one follows"
        return self._undo()

    def _act(self, act: Act, who: Who) -> str:
        """One act, and proof that the chips are now where it should have brought them."""
        names = [n for n, w in ((self._first, Who.FIRST), (self._second, Who.SECOND)) if n and who in (w, Who.BOTH)]
        before = self._pair()
        if act is Act.ARM and not self._committed:
            self._check_fitness(self._board_name())
        if act in (Act.ARM, Act.RESTART) and not self._incoming.ended:
            self._incoming.pour({})  # an earlier run has written all: this file must be whole nevertheless
        text = self._write(names) if act is Act.WRITE else ", ".join(self._one(act, n) for n in names)
        self._look_again()
        expected = transaction.after(before, act, who)
        if act is Act.REVERT:
            if any(self._looks[n].state not in (State.OLD, State.WRITTEN) for n in names):
                raise VerificationFailed(f"{' and '.join(names)} did not go back: {self._state_words()}")
        elif self._pair() != expected:
            for name in names:
                if act in (Act.RESTART, Act.CHECK, Act.CONFIRM) and self._looks[name].state is State.WRITTEN:
                    raise self._chips[name].fell_back()
            raise VerificationFailed(f"after {act.value} of {' and '.join(names)}: {self._state_words()}")
        self._committed = self._committed or act is Act.CONFIRM
        return text

    def _one(self, act: Act, name: str) -> str:
        chip = self._chips[name]
        does = {
            Act.ARM: chip.arm, Act.RESTART: chip.restart, Act.CHECK: chip.check, Act.CONFIRM: chip.confirm,
            Act.REVERT: chip.revert,
        }  # fmt: skip
        text = does[act]()
        return text if len(self._chips) == 1 else f"{name}: {text}"

    def _write(self, names: Sequence[str]) -> str:
        """The microcontroller's image on its own line while the AR1 takes the stream. When one fails, or the user stops it,
        the other is not waited for: the next flash goes on where it is."""
        self._done, self._total = {}, sum(self._size_of(n) for n in names)
        try:
            with ThreadPoolExecutor(1, "rtos") as beside:
                try:
                    rtos = beside.submit(self._write_rtos) if "rtos" in names else None
                    self._incoming.pour({n: self._counted(n) for n in names if n != "rtos"})
                    if rtos:
                        rtos.result()
                except BaseException:
                    self._severed.set()
                    raise
        finally:
            self._severed.clear()
        return ", ".join(f"{n} {self._size_of(n) / 1e6:.2f} MB" for n in names)

    def _write_rtos(self) -> None:
        component = next(c for c in self._manifest.components if c.chip == "rtos")
        self._chips["rtos"].write(component, iter([(0, self._incoming.front["rtos"])]))

    def _counted(self, name: str) -> Callable[[Component, Pieces], None]:
        def take(component: Component, pieces: Pieces) -> None:
            def counting() -> Pieces:
                for offset, chunk in pieces:
                    yield offset, chunk
                    self._report(name, self._done.get(name, 0) + len(chunk))

            self._chips[name].write(component, counting())

        return take

    def _report(self, name: str, done: int) -> None:
        """May be called by both writers at once."""
        with self._lock:
            self._done[name] = done
            all_done = sum(self._done.values())
            self._job.progress(Event(self._job.opener.identity, "write", Level.PROGRESS, "", all_done, self._total))

    def _compare(self) -> str:
        if any(self._looks[n].state is not State.CONFIRMED for n in self._releases):
            raise VerificationFailed(f"the device does not run this release: {self._state_words()}", hint="flash it")
        return f"this release runs and is confirmed: {self._words(new=True)}"

    # --- failure ------------------------------------------------------------------------------------------------------

    def _failed(self, error: QuarkError, act: Act, who: Who, goal: tuple[State, State]) -> str:
        """Before anything is confirmed both chips go back; after that the other one is brought forward, once.

        Raises the error, unless all came to a good end after all.
        """
        with suppress(QuarkError):
            self._look_again()
        if self._committed or self._confirmed_now():
            self._committed = True
            return self._walk(goal, act, who, f"{error.message}; bringing the other chip forward", error)
        lost = any(self._looks[n].power_lost and self._looks[n].state is State.WRITTEN for n in self._releases)
        undone = self._undo()
        error.hint = f"{error.hint}; {undone}" if error.hint else undone
        if lost and act in (Act.RESTART, Act.CHECK, Act.CONFIRM):
            # Not the image's fault: a battery was out for too long. The images are still there.
            return self._walk(goal, act, who, "the power was gone for a moment; trying once more", error)
        raise error

    def _confirmed_now(self) -> bool:
        """Was something confirmed, although the answer was lost?"""
        return any(
            look.state is State.CONFIRMED and self._begun[n] is not State.CONFIRMED
            for n, look in self._looks.items() if n in self._releases
        )  # fmt: skip

    def _walk(self, goal: tuple[State, State], act: Act, who: Who, why: str, error: QuarkError) -> str:
        """By the table from where the chips are to where the failed act should have brought them. Once in a session."""
        if self._tried_again:
            raise error
        self._tried_again = True
        self._notes.append(why)
        self._tell(Level.NOTE, why)
        try:
            while self._pair() != goal:
                for next_act, next_who in transaction.NEXT[self._pair()]:
                    self._act(next_act, next_who)
            if act is Act.CHECK:
                return self._act(act, who)
        except QuarkError as again:
            undone = self._state_words() if self._committed or self._confirmed_now() else self._undo()
            again.hint = f"{again.hint}; {undone}" if again.hint else undone
            raise again from error
        return "at the second attempt"

    def _undo(self) -> str:
        """Both chips back to what they ran before. Returns what came of it; raises nothing.

        Where one does not answer, the other is left alone: which of them is armed decides who goes back first.
        """
        try:
            self._look_again()
            while todo := transaction.UNDO[self._pair()]:
                for act, who in todo:
                    self._act(act, who)
        except QuarkError as error:
            told = f"could not be brought back ({error.message}): the next restart does it"
            self._tell(Level.NOTE, told)
            return told
        runs = self._words(new=False)
        back = f"both chips run what they ran before: {runs}" if self._second else f"it runs {runs}, as before"
        self._tell(Level.NOTE, back)
        return back

    # --- words --------------------------------------------------------------------------------------------------------

    def _look_again(self) -> None:
        self._looks = {name: chip.look() for name, chip in self._chips.items()}

    def _pair(self) -> tuple[State, State]:
        second = self._looks[self._second].state if self._second else State.CONFIRMED
        return self._looks[self._first].state, second

    def _packs(self) -> Mapping[str, int]:
        return next((look.packs for look in self._looks.values() if look.packs), {})

    def _running(self) -> Mapping[str, Version]:
        return {n: look.running for n, look in self._looks.items() if look.running}

    def _size_of(self, name: str) -> int:
        mine = {e.member for c in self._manifest.components if c.chip == name for e in c.extents}
        return sum(m.size_bytes for m in self._manifest.members if m.name in mine)

    def _words(self, *, new: bool) -> str:
        versions = {n: r.version for n, r in self._releases.items()} if new else self._running()
        if len(self._chips) == 1:
            return ", ".join(map(str, versions.values()))
        return ", ".join(f"{n} {v}" for n, v in versions.items())

    def _state_words(self) -> str:
        return ", ".join(f"{n} is {look.state.value}" for n, look in self._looks.items())

    def _step(self, act: Act, who: Who) -> Step:
        name = {Who.FIRST: self._first, Who.SECOND: self._second, Who.BOTH: ""}[who]
        names = [name] if name else [self._first, self._second]
        texts = {
            Act.WRITE: "into the slots that do not run, each chunk verified before it is sent",
            Act.ARM: "starts the new image next, on trial",
            Act.RESTART: "test boot",
            Act.CHECK: "wait until all self-tests pass",
            Act.CONFIRM: "make the new image permanent",
            Act.REVERT: "withdraw what an earlier run has left",
        }
        size = sum(self._size_of(n) for n in names if n) if act is Act.WRITE else 0
        return Step(f"{act.value} {name}".rstrip(), texts[act], size)

    def _tell(self, level: Level, text: str) -> None:
        self._job.progress(Event(self._job.opener.identity, "update", level, text))


def chips_of(job: Job, incoming: Incoming, report: Callable[[int], None]) -> Mapping[str, Chip]:
    """The chips that a bundle, or --chip, asks for. Raises what finding them raises, InputWrong."""
    wanted = [job.chip] if job.chip else list(incoming.manifest.chips)
    chips: dict[str, Chip] = {}
    if "rtos" in wanted and "rtos" in incoming.front:
        from quarkctl.flash.rtos_chip import RtosChip

        chips["rtos"] = RtosChip(job, incoming.front["rtos"], report)
    if "ar1" in wanted and "ar1" in incoming.manifest.chips:
        from quarkctl.flash.ar1_chip import Ar1Chip

        if "ar1" not in incoming.front:
            raise InputWrong(
                f"the AR1's images have no {VBMETA}: nothing would tell what a slot holds",
                hint="--chip rtos flashes one chip; or build the bundle with it",
            )
        if job.find is None:
            raise UsageWrong("nothing here finds the AR1", hint="quarkctl flash does")
        here = job.opener.identity
        word = job.wish.ar1.device or (here if here.startswith("sim:") else "")
        chips["ar1"] = Ar1Chip(
            job, incoming.manifest, incoming.front["ar1"], job.find(word, LOADER), job.find(word, SYSTEM)
        )
    return chips
