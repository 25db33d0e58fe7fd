"""What a diagnosis is based on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quarkctl.formats.schema import Schema, split_bits
from quarkctl.formats.stream import Counts, Gap, Sample


@dataclass(frozen=True)
class Evidence:
    """Samples of one device with the account of what is missing between them, and where they come from.

    ``source`` names a recording or a live device, ``sha256`` the recording's hash (empty for a live device).
    """

    schema: Schema
    samples: Sequence[Sample]
    counts: Counts
    gaps: Sequence[Gap]
    source: str = ""
    sha256: str = ""
    ending: str = "complete"

    def of(self, message: str) -> list[Sample]:
        return [s for s in self.samples if s.message.name == message]

    def bits(self, sample: Sample, name: str) -> dict[str, int]:
        return split_bits(sample.message.field(name), sample.number(name))

    def span_s(self) -> float:
        """Seconds of device time that the samples cover, over all starts."""
        total = 0
        for boot in {s.boot for s in self.samples}:
            times = [s.time_us for s in self.samples if s.boot == boot]
            total += max(times) - min(times)
        return total / 1e6

    def identity(self) -> dict[str, str]:
        """Device, firmware and layout as the stream itself states them."""
        hellos = self.of("hello")
        if not hellos:
            return {"source": self.source}
        h = hellos[-1]
        version = f"{h.number('version_major')}.{h.number('version_minor')}.{h.number('version_revision')}"
        return {
            "source": self.source,
            "board": h.text("board"),
            "serial": h.text("serial"),
            "rtos": version,
            "build_id": bytes(h.numbers("build_id")).hex(),
            "layout": f"{h.number('layout_hash'):#06x}",
        }
