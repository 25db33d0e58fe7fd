"""The client of a coordinator, a process of its own: ``python -m quarkctl.rig.labgrid.agent HOST:PORT``.

gRPC has threads, and the process of a run forks, so the two are kept apart. It takes JSON lines on standard input ({"do":
"list" | "acquire" | "release", "place": NAME}) and answers each with one. At the end of its input it releases what it
holds: a run that was killed leaves no place behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any

from labgrid.remote.client import ClientSession, Error, start_session

#: Resources through which glasses can be reached as a stream.
_CLASSES = ("QuarkBench", "NetworkSerialPort")


class Agent:
    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._held: list[str] = []

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        place = str(request.get("place", ""))
        try:
            if request["do"] == "list":
                await self._session.sync_with_coordinator()
                return {"places": [self._describe(name) for name in sorted(self._session.places)]}
            if request["do"] == "acquire":
                if place not in self._held:
                    await self._session._acquire_place(place)
                    self._held.append(place)
                return self._describe(place)
            await self._release(place)
        except Error as error:
            holder = getattr(self._session.places.get(place), "acquired", None)
            return {"error": str(error), "holder": holder}
        return {}

    async def _release(self, place: str) -> None:
        if place in self._held:
            self._held.remove(place)
            await self._session._release_place(place)

    async def end(self) -> None:
        for place in list(self._held):
            try:
                await self._release(place)
            except Error as error:
                print(error, file=sys.stderr)
        await self._session.stop()
        await self._session.close()

    def _describe(self, name: str) -> dict[str, Any]:
        """The place with the first resource of ours that it matches; host is empty while there is none."""
        place = self._session.places[name]
        out = {"place": name, "acquired": place.acquired, "tags": dict(place.tags), "host": "", "port": 0, "device": "",
               "board": "", "exporter": ""}  # fmt: skip
        for exporter, groups in sorted(self._session.resources.items()):
            for group, resources in sorted(groups.items()):
                for resource_name, r in sorted(resources.items()):
                    params = r.params
                    if (
                        r.cls in _CLASSES
                        and place.hasmatch((exporter, group, r.cls, resource_name))
                        and params.get("host")
                    ):
                        port = params.get("port") or 0
                        return {**out, "exporter": exporter, "host": params["host"], "port": port,
                                "device": params.get("device", ""), "board": params.get("board", "")}  # fmt: skip
        return out


def main(address: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # labgrid prints
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    args = argparse.Namespace(allow_unmatched=False, kick=False)
    try:
        agent = Agent(start_session(address, extra={"args": args}, loop=loop))
    except (Error, OSError, ValueError) as error:
        print(json.dumps({"error": str(error) or repr(error)}), file=answers, flush=True)
        return
    print(json.dumps({"ready": True}), file=answers, flush=True)

    async def serve() -> None:
        try:
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                print(json.dumps(await agent.answer(json.loads(line))), file=answers, flush=True)
        finally:
            await agent.end()

    loop.run_until_complete(serve())


if __name__ == "__main__":
    main(sys.argv[1])
