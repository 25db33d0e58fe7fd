"""A PostgreSQL of the test's own: a temporary cluster that listens on a socket in its folder and nowhere else."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from quarkctl.sim.qemu import die_with_parent
from tests import scratch


def _program(name: str) -> str:
    """Debian keeps them out of the path, one folder a version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")) or [Path(shutil.which(name) or name)]
    return str(found[-1])


class Postgres:
    """Started by `start`, gone after `stop`; `remove` forgets the data."""

    def __init__(self) -> None:
        self.folder = scratch.make("qkpg-")
        # It refuses to run as root; Debian's package brings a user for it.
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.folder, self._user)
        self._process: subprocess.Popen[str] | None = None
        self._run("initdb", "-D", "data", "-A", "trust", "-U", "quark", "--no-sync", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql://quark@/postgres?host={self.folder}"

    def _run(self, program: str, *args: str) -> None:
        subprocess.run(
            [_program(program), *args], cwd=self.folder, user=self._as(), check=True, capture_output=True, timeout=60,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    def _as(self) -> str | None:
        return self._user if os.geteuid() == 0 else None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [_program("postgres"), "-D", "data", "-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off"],
            cwd=self.folder, user=self._as(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            preexec_fn=die_with_parent,
        )  # fmt: skip
        said = []
        for line in self._process.stderr or ():
            said.append(line)
            if "ready to accept connections" in line:
                return
        raise AssertionError(f"PostgreSQL did not start: {''.join(said)}")

    def stop(self) -> None:
        """Like a server that goes away: connections are cut."""
        if self._process:
            self._process.send_signal(3)  # SIGQUIT: at once
            self._process.communicate(timeout=30)
            self._process = None

    def remove(self) -> None:
        self.stop()
        scratch.remove(self.folder)
