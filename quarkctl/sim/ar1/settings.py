"""What makes one virtual AR1 different from another, and what it remembers without power."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

MIB = 1 << 20
#: Mode while the boot loader is at work: not one to be asked for.
STARTING = "starting"

#: Misbehaviour that real devices show, by name. Each is asked for where the protocol has the choice.
QUIRKS = {
    "hello_once": "Sahara says HELLO only to whoever opens first",
    "raw_survives": "an open raw phase goes on after the cable was out, and takes whatever comes next for data",
    "zlp_stalls": "a zero-length packet inside image data stops Sahara for good",
    "reads_32": "Sahara asks with 32-bit packets",
    "sahara_v3": "Sahara version 3: no hardware id, chip id instead",
    "done_pending": "DONE_RESPONSE says pending although the only image is complete",
    "reads_twice": "Sahara asks for a range twice and out of order",
    "wrong_programmer": "the programmer's signature is refused",
    "no_command_mode": "Sahara has no command mode",
    "late_logs": "the programmer logs after its response, fastboot after its answer",
    "unescaped_logs": "log text is not valid XML",
    "joined_documents": "several documents come in one transfer",
    "split_documents": "documents come in small pieces",
    "log_flood": "megabytes of log at each command",
    "small_payload": "the programmer takes 16 KiB at once and refuses more",
    "odd_payload": "the supported payload is no multiple of the sector",
    "early_nak": "data is refused in the middle of it",
    "digest_lies": "digests are wrong",
    "no_digest": "the programmer knows no digests",
    "no_storage_info": "the programmer knows no storage info",
    "vip": "only packets of a digest table are taken",
    "wrong_data_size": "fastboot announces another size than asked for",
    "empty_unknown": "unknown variables are empty instead of refused",
    "bare_numbers": "numbers have no 0x",
    "mute": "commands are taken and never answered",
    "garbage": "answers are no fastboot",
    "endless_info": "fastboot says INFO without end",
    "lost_datagrams": "every third UDP packet is lost",
    "long_answers": "what it says does not fit the buffers that the protocols name",
    "stalls": "the OUT endpoint of USB stalls in the middle of data, once",
    "slow_media": "the storage takes 1 MiB in a second",
    "bad_blocks": "every 61st sector cannot be written",
    "reboots_away": "the device restarts into its system in the middle of a download",
}


@dataclass
class Settings:
    """Of one device. Sizes in bytes."""

    board: str = "s1-virtual"
    #: What overlays in dtbo name the board by.
    board_id: int = 1
    serial: str = "VAR1-0001"
    #: Of the SoC: what EDL shows. It is not the serial number of fastboot.
    chip_serial: int = 0x51A00001
    sector_bytes: int = 4096
    memory: str = "ufs"
    lun_bytes: tuple[int, ...] = (64 * MIB, 8 * MIB, 8 * MIB)
    #: Partitions by LUN, as the factory made them.
    layout: dict[int, list[tuple[str, int]]] = field(default_factory=dict)
    max_download_bytes: int = 256 * MIB
    payload_bytes: int = MIB
    packet_bytes: int = 512
    #: Where the fault `stalls` strikes, in bytes from the plug on.
    stall_after_bytes: int = 256 << 10
    quirks: set[str] = field(default_factory=set)
    #: Data is taken and forgotten: for measurements of the way to the storage.
    discard: bool = False
    #: Digest of the only programmer that the boot ROM takes; empty takes any.
    programmer_digest: str = ""
    #: SHA-256, in hex, of the AVB key that the boot loader trusts; empty trusts any.
    root_key_digest: str = ""


@dataclass
class Remembered:
    """Replay-protected memory and switches: survives power cuts and flashing."""

    unlocked: bool = True
    critical_unlocked: bool = False
    battery_soc_pct: int = 80
    snapshot: str = "none"
    #: Oldest rollback index that the boot loader still takes, by location.
    rollback: dict[str, int] = field(default_factory=dict)
    #: Why the boot loader refused a slot or gave it up.
    reasons: dict[str, str] = field(default_factory=dict)
    #: LUN that the ROM boots from.
    bootable_lun: int = 1

    @classmethod
    def load(cls, path: Path) -> Remembered:
        if not path.exists():
            return cls()
        return cls(**json.loads(path.read_text("utf-8")))

    def save(self, path: Path) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)), "utf-8")
        new.replace(path)
