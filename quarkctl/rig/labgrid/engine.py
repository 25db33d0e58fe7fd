"""Stations that are places of a labgrid coordinator: listed, acquired when their turn comes, released at their verdict."""

from __future__ import annotations

import importlib.util
import json
import select
import subprocess
import sys
from types import TracebackType
from typing import Any

from quarkctl.errors import DeviceBusy, DeviceMissing, HostUnfit, LinkError, LinkTimeout
from quarkctl.formats.rig_file import Station
from quarkctl.link.stream import StreamOpener

_ANSWER_TIMEOUT_S = 15.0
SCHEME = "labgrid:"


class Coordinator:
    """The agent that talks to one coordinator, as long as the context lasts."""

    def __init__(self, address: str) -> None:
        """Raises HostUnfit (labgrid is not installed), LinkError (no coordinator there)."""
        if importlib.util.find_spec("labgrid") is None:
            raise HostUnfit("labgrid is not installed", hint="pip install 'quarkctl[labgrid]'")
        self.address = address
        self._agent = subprocess.Popen(
            [sys.executable, "-m", "quarkctl.rig.labgrid.agent", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What is still held is released by the agent."""
        if self._agent.stdin:
            self._agent.stdin.close()
        try:
            self._agent.wait(_ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        if self._agent.stdout:
            self._agent.stdout.close()

    def stations(self) -> dict[str, Station]:
        """Places through which glasses can be reached. ``tags`` are those of the place, as ``key=value``."""
        out = {}
        for p in self._ask(do="list")["places"]:
            if p["host"]:
                tags = tuple(f"{k}={v}" for k, v in p["tags"].items())
                board = p["board"] or p["tags"].get("board", "")
                out[p["place"]] = Station(p["place"], port=f"{SCHEME}{p['place']}", board=board, tags=tags)
        return out

    def find(self, word: str, _method: str) -> StreamOpener:
        """Acquire the place and tell where it is. Raises DeviceBusy, DeviceMissing."""
        place = word.removeprefix(SCHEME)
        said = self._ask(do="acquire", place=place)
        if "error" in said:
            if said.get("holder"):
                raise DeviceBusy(f"place {place} is acquired by {said['holder']}", hint="--wait S waits for it")
            raise DeviceMissing(f"place {place}: {said['error']}", hint="labgrid-client places; does its exporter run?")
        if not said["host"]:
            raise DeviceMissing(f"place {place} has no glasses", hint="does its exporter run?")
        return StreamOpener(word, said["host"], int(said["port"]))

    def release(self, station: Station) -> None:
        self._ask(do="release", place=station.name)

    def _ask(self, **request: str) -> dict[str, Any]:
        try:
            if self._agent.stdin:
                self._agent.stdin.write(json.dumps(request).encode() + b"\n")
                self._agent.stdin.flush()
        except OSError as error:
            raise LinkError(f"the client of coordinator {self.address} is gone") from error
        said = self._read()
        if "error" in said and request["do"] != "acquire":
            raise LinkError(f"coordinator {self.address}: {said['error']}")
        return said

    def _read(self) -> dict[str, Any]:
        out = self._agent.stdout
        if out is None or not select.select([out], [], [], _ANSWER_TIMEOUT_S)[0]:
            raise LinkTimeout(f"coordinator {self.address} does not answer", hint="labgrid-coordinator -l HOST:PORT")
        line = out.readline()
        if not line:
            raise LinkError(f"no coordinator at {self.address}", hint="labgrid-coordinator -l HOST:PORT starts one")
        said = json.loads(line)
        if "error" in said and "holder" not in said:
            raise LinkError(f"coordinator {self.address}: {said['error']}", hint="labgrid-coordinator -l HOST:PORT")
        return dict(said)
