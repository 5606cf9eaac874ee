"""Servers on a port of this machine that give every client the same answer, or none."""

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
    """The address of a server (host:port), and the connections that it has accepted."""

    place: str
    met: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.place}"


@contextmanager
def listening(answer: bytes | None = None) -> Iterator[Listener]:
    """Accepts every connection; sends `answer` and closes it, or sends nothing and keeps it open."""
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
    """The URL of a server that gives every request the same HTTP answer; None: it closes the connection."""
    answer = b""
    if status is not None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n"
        answer = head.encode() + body.encode()
    with listening(answer) as listener:
        yield listener.url


def free_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def closed_port() -> str:
    """A host:port at which nothing listens."""
    return f"127.0.0.1:{free_port()}"
