"""From an address to the place in the source: ELF and DWARF, through pyelftools."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from quarkctl.errors import InputWrong

#: The linker's build id note (owner "GNU", type 3, 20 bytes), wherever it lies.
_NOTE = bytes.fromhex("04000000 14000000 03000000") + b"GNU\0"
#: The firmware sends that many bytes of it.
BUILD_ID_BYTES = 8


def build_id(data: bytes) -> bytes:
    """First bytes of the build id in an ELF file or a raw image, empty if there is none."""
    at = data.find(_NOTE)
    return data[at + len(_NOTE) :][:BUILD_ID_BYTES] if at >= 0 else b""


def place(elf: bytes, address: int) -> str:
    """``function at file:line`` of an address, as far as the file knows it; else an empty text.

    Raises InputWrong when the bytes are no ELF file.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        file = ELFFile(BytesIO(elf))
        words = [_function(file, address), _line(file, address)]
    except (ELFError, ValueError, KeyError, AssertionError, IndexError) as error:
        raise InputWrong(f"not a sound ELF file: {error}") from error
    return " at ".join(w for w in words if w)


def _function(file: Any, address: int) -> str:
    table = file.get_section_by_name(".symtab")
    for symbol in table.iter_symbols() if table else ():
        start = symbol["st_value"] & ~1  # Thumb functions carry their mode in bit 0
        if symbol["st_info"]["type"] == "STT_FUNC" and start <= address < start + symbol["st_size"]:
            return str(symbol.name).split(".", 1)[0]  # without the compiler's .isra, .part, .constprop
    return ""


def _line(file: Any, address: int) -> str:
    if not file.has_dwarf_info():
        return ""
    dwarf = file.get_dwarf_info()
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        before = None
        for entry in program.get_entries() if program else ():
            state = entry.state
            if state is None:
                continue
            if before is not None and before.address <= address < state.address:
                return f"{_file_name(program, before.file)}:{before.line}"
            before = None if state.end_sequence else state
    return ""


def _file_name(program: Any, index: int) -> str:
    """File numbers start at 1 up to DWARF 4, at 0 since DWARF 5."""
    entries = program["file_entry"]
    entry = entries[index if program["version"] >= 5 else index - 1]
    return str(entry.name.decode("utf-8", "replace")).rsplit("/", 1)[-1]
