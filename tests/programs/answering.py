"""Something that listens on a port of this machine: with one answer for all, or with none."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Listener:
    """host:port, and the connections that were taken."""

    place: str
    met: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.place}"


@contextmanager
def listening(answer: bytes | None = None) -> Iterator[Listener]:
    """Takes every connection; sends `answer` and hangs up, or says nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(f"127.0.0.1:{server.getsockname()[1]}")

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                listener.met.append(client)
                if answer is not None:
                    with client, contextlib.suppress(OSError):
                        client.recv(65536)
                        client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for client in listener.met:
                client.close()


@contextmanager
def answering(status: int | None, body: str = "") -> Iterator[str]:
    """The URL of something that gives every request one HTTP answer; None: it hangs up."""
    answer = b""
    if status is not None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n"
        answer = head.encode() + body.encode()
    with listening(answer) as listener:
        yield listener.url


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def closed_port() -> str:
    """host:port where nobody listens."""
    return f"127.0.0.1:{free_port()}"
