"""A pair of glasses that an exporter forwards: what the client sees of it, and how the exporter starts it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import attr
from labgrid.factory import target_factory
from labgrid.remote.exporter import ResourceExport
from labgrid.resource.common import NetworkResource


@target_factory.reg_resource
@attr.s(eq=False)
class QuarkBench(NetworkResource):
    """``device``: what `--device` takes on the exporter's computer; ``port``: where it is forwarded as a TCP stream."""

    port: Any = attr.ib(default=0, validator=attr.validators.instance_of(int))
    device: Any = attr.ib(default="", validator=attr.validators.instance_of(str))
    board: Any = attr.ib(default="", validator=attr.validators.instance_of(str))


@attr.s(eq=False)
class QuarkBenchExport(ResourceExport):
    """Runs `quarkctl rig bridge` while the place is acquired. The port is fixed: a client finds it again after the exporter
    was started anew."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.data["cls"] = "QuarkBench"
        self.local = _local(self.host, self.local_params)
        self._bridge: subprocess.Popen[bytes] | None = None

    def _get_params(self) -> dict[str, Any]:
        p = self.local_params
        return {"host": self.host, "port": p["port"], "device": p["device"], "board": p.get("board", "")}

    def _start(self, start_params: dict[str, Any]) -> None:
        self._bridge = subprocess.Popen(
            [sys.executable, "-m", "quarkctl.cli.main", "rig", "bridge", self.local_params["device"],
             "--listen", f"{self.host}:{self.local_params['port']}", "--until-eof"],
            stdin=subprocess.PIPE,  # its end tells the bridge that we are gone; a hook in the fork would upset gRPC
        )  # fmt: skip

    def _stop(self, start_params: dict[str, Any]) -> None:
        if self._bridge:
            self._bridge.terminate()
            self._bridge.communicate(timeout=10)
            self._bridge = None


def _local(host: str, params: dict[str, Any]) -> Any:
    """The resource as the exporter itself sees it; the generated constructor takes what the base classes add."""
    make: Any = QuarkBench
    return make(target=None, name=None, host=host, **params)
