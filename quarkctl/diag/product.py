"""What a healthy unit of a product is like: facts of its board profile that checks compare with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quarkctl import boards
from quarkctl.boards import Board
from quarkctl.diag.ocv import Table
from quarkctl.errors import InputWrong

ZONES = ("ar1", "rtos", "battery_left", "battery_right", "skin")
#: Of the AR1's own stream: the schema's ar1_zone.
AR1_ZONES = ("cpu", "npu", "camera", "skin")
SIDES = ("left", "right")


@dataclass(frozen=True)
class Region:
    """Charging between two cell temperatures: at most so much current (share of the fast current) and voltage."""

    from_c: float
    to_c: float
    share: float
    mv: float


@dataclass(frozen=True)
class Golden:
    """Thermal response of a zone of a golden unit to the power drawn from the bus."""

    k_per_w: tuple[float, ...]
    tau_s: tuple[float, ...]


@dataclass(frozen=True)
class Product:
    """Facts that a profile lacks are None or empty, and the checks that need them say so.

    ``trip_c``: zone -> trip of level 1, 2, ...; None where the zone asks for no such level.
    """

    name: str
    displays: int | None = None
    capacity_mah: float | None = None
    ocv: Table | None = None
    pack_mohm: float | None = None
    bus_uf: float | None = None
    uvlo_mv: float | None = None
    shortest_dip_us: float | None = None
    converter_hz: float | None = None
    hysteresis_c: float | None = None
    trip_c: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    golden: dict[str, Golden] = field(default_factory=dict)
    jeita: tuple[Region, ...] = ()
    charge_ma: float | None = None
    rail: str = "bus"


def product_of(name: str) -> Product:
    """Of the board that a device says it is; without facts where no profile is known."""
    return product(boards.load(name)) if name in boards.names() else Product(name or "unknown")


def product(board: Board) -> Product:
    """Raises InputWrong where a fact has the wrong shape."""

    def numbers(key: str) -> tuple[float, ...]:
        value = board.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
            raise InputWrong(f"board {board.name}: {key} must be a list of numbers")
        return tuple(float(v) for v in value)

    def rows(key: str, width: int) -> list[Sequence[Any]]:
        value = board.get(key, [])
        if not isinstance(value, list) or not all(isinstance(r, list) and len(r) == width for r in value):
            raise InputWrong(f"board {board.name}: {key} must be a list of rows of {width}")
        return value

    mv = numbers("cell.ocv_mv")
    soc = tuple(k / (len(mv) - 1) for k in range(len(mv))) if len(mv) > 1 else ()
    if any(b <= a for a, b in itertools.pairwise(mv)):
        raise InputWrong(f"board {board.name}: cell.ocv_mv must rise")
    return Product(
        board.name,
        board.get("product.displays"),
        board.get("product.pack_mah"),
        Table(soc, mv, float(board.get("cell.ocv_u_mv", 5.0))) if soc else None,
        board.get("cell.mohm"),
        board.get("bus.uf"),
        board.get("bus.uvlo_mv"),
        board.get("bus.shortest_dip_us"),
        board.get("bus.converter_hz"),
        board.get("thermal.hysteresis_c"),
        {
            zone: tuple(None if t >= 1000 else float(t) for t in numbers(f"thermal.trip_c.{zone}"))
            for zone in ZONES
            if board.get(f"thermal.trip_c.{zone}")
        },
        {
            zone: Golden(numbers(f"thermal.golden.{zone}.k_per_w"), numbers(f"thermal.golden.{zone}.tau_s"))
            for zone in ZONES
            if board.get(f"thermal.golden.{zone}.tau_s")
        },
        tuple(Region(*(float(v) for v in r)) for r in rows("charge.jeita", 4)),
        board.get("charge.fast_ma"),
    )
