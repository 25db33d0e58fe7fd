"""fastboot over UDP: one packet, one answer; lost ones are sent again."""

from __future__ import annotations

import select
import socket
import struct
import time

from quarkctl.errors import DeviceMissing, LinkLost, LinkTimeout, ProtocolError
from quarkctl.formats import fastboot
from quarkctl.formats.fastboot import UdpId, UdpPacket

#: Times of the specification: again after half a second; a device may be silent for a minute while it writes.
RESEND_S = 0.5
#: A packet is sent again sooner where answers come fast: after so many times what they take, and not before that. Each
#: time the wait doubles: the device may have to write first.
RESEND_TRIPS, RESEND_MIN_S = 8, 0.02
#: Nobody is there. A host under load may be so late itself.
QUERY_S = 5.0
SILENCE_S = 60.0
#: What we offer; the device may want less. Larger ones would be cut into fragments by most networks, and loopback takes it.
PACKET_BYTES = 8192


class UdpLink:
    """A fastboot session. Each read takes one packet from the device, each write sends one message in pieces."""

    def __init__(self, host: str, port: int) -> None:
        """Raises DeviceMissing, ProtocolError."""
        self.name = f"udp:{host}:{port}"
        self._packet_bytes = fastboot.UDP_PACKET_MIN
        self._sequence = 0
        self._pending = bytearray()
        #: What an answer takes, on the average; 0 until one came.
        self._trip_s = 0.0
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.connect(address)
        except OSError as error:
            raise DeviceMissing(f"cannot reach {self.name}: {error.strerror or error}") from error
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        try:
            answer = self._exchange(UdpId.QUERY, b"", QUERY_S)
        except (LinkTimeout, LinkLost) as error:
            raise DeviceMissing(
                f"nobody answers at {self.name}",
                hint="is the device in fastboot, and the port right? the usual one is 5554",
            ) from error
        if len(answer) < 2:
            raise ProtocolError(f"{self.name} answered a query with {len(answer)} bytes")
        (self._sequence,) = struct.unpack(">H", answer[:2])
        answer = self._exchange(UdpId.INIT, fastboot.UDP_INIT.pack(fastboot.UDP_VERSION, PACKET_BYTES), SILENCE_S)
        if len(answer) < fastboot.UDP_INIT.size:
            raise ProtocolError(f"{self.name} answered the beginning of a session with {len(answer)} bytes")
        version, packet_bytes = fastboot.UDP_INIT.unpack_from(answer)
        if version < 1 or packet_bytes < fastboot.UDP_PACKET_MIN:
            raise ProtocolError(f"{self.name} speaks version {version} with packets of {packet_bytes} bytes")
        self._packet_bytes = min(packet_bytes, PACKET_BYTES)

    def _exchange(self, kind: UdpId, data: bytes | memoryview, timeout_s: float, *, continued: bool = False) -> bytes:
        """Send one packet until its answer comes; returns the answer's data, all pieces of it.

        Raises LinkTimeout, LinkLost, ProtocolError (the device's own words).
        """
        whole = bytearray()
        while True:
            answer = self._one(kind, data, timeout_s, continued=continued)
            if kind is not UdpId.QUERY:
                self._sequence = (self._sequence + 1) & 0xFFFF
            if answer.id is UdpId.ERROR:
                raise ProtocolError(
                    f"{self.name} says: {answer.data.decode('utf-8', 'replace')}",
                    hint="it restarted, or somebody else took it meanwhile: repeat the command",
                )
            whole += answer.data
            if not answer.continued:
                return bytes(whole)
            if len(whole) > PACKET_BYTES * 1024:
                raise ProtocolError(f"{self.name} answers without end")
            data = b""

    def _one(self, kind: UdpId, data: bytes | memoryview, timeout_s: float, *, continued: bool) -> UdpPacket:
        packet = fastboot.build_udp(UdpPacket(kind, self._sequence, bytes(data), continued))
        deadline = time.monotonic() + timeout_s
        wait_s = min(max(RESEND_TRIPS * self._trip_s, RESEND_MIN_S), RESEND_S) if self._trip_s else RESEND_S
        first = True
        while (now := time.monotonic()) < deadline:
            try:
                self._socket.send(packet)
                resend = min(now + wait_s, deadline)
                while select.select([self._socket], [], [], max(resend - time.monotonic(), 0.0))[0]:
                    answer = fastboot.parse_udp(self._socket.recv(65536))
                    if answer and answer.sequence == self._sequence and answer.id in (kind, UdpId.ERROR):
                        # Of one that was sent twice nobody knows which is answered: good for a first guess only.
                        if not self._trip_s:
                            self._trip_s = time.monotonic() - now
                        elif data and first:
                            self._trip_s += (time.monotonic() - now - self._trip_s) / 8
                        return answer
                    if answer and kind is UdpId.QUERY and answer.id is kind:
                        return answer
                wait_s, first = min(2 * wait_s, RESEND_S), False
            except ConnectionRefusedError as error:
                raise LinkLost(f"{self.name} is closed", hint="the device restarted or left fastboot") from error
            except OSError as error:
                raise LinkLost(f"{self.name} went away: {error.strerror or error}") from error
        raise LinkTimeout(f"{self.name} does not answer", hint="the network lost it, or the device hangs")

    def read(self, timeout_s: float) -> bytes:
        """The device's next message; empty when it had none in time. Raises LinkLost, ProtocolError."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                data = self._exchange(UdpId.FASTBOOT, b"", max(deadline - time.monotonic(), RESEND_S))
            except LinkTimeout:
                return b""
            if data or time.monotonic() > deadline:
                return data

    def write(self, data: bytes | memoryview) -> None:
        """One message, in as many packets as it needs."""
        room = self._packet_bytes - fastboot.UDP_HEADER.size
        view = memoryview(data)
        while True:
            piece, view = view[:room], view[room:]
            self._exchange(UdpId.FASTBOOT, piece, SILENCE_S, continued=bool(view))
            if not view:
                return

    def close(self) -> None:
        self._socket.close()
