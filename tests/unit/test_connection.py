import errno
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mkiso.web import live
from mkiso.web.live import Client, break_connection, has_left

PIECE = 16384
DATA = bytes(range(256)) * 1024  # what a disc's chunk has
Ends = tuple[Client, socket.socket]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        theirs.connect(listener.getsockname())
        return listener.accept()[0], theirs


@pytest.fixture(params=[tcp_pair, socket.socketpair], ids=["TCP", "unix"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """The service's and the client's end of a connection, with little room between them."""
    ours, theirs = request.param()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
    with Client(fileno=ours.detach()) as client, theirs:
        yield client, theirs


def read_all(reader: socket.socket, pause: float = 0) -> bytes:
    read = b""
    while piece := reader.recv(PIECE):
        read += piece
        time.sleep(pause)
    return read


def test_what_is_sent_arrives_whole(ends: Ends) -> None:
    client, theirs = ends
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(read_all(theirs)), daemon=True)
    reader.start()
    client.sendall(DATA)
    client.sendall(b"the end")
    client.close()
    reader.join()
    assert read == [DATA + b"the end"]


def test_a_reader_that_takes_nothing_is_cut_off(ends: Ends) -> None:
    client, theirs = ends
    client.patience = 0.2
    with pytest.raises(BrokenPipeError):
        client.sendall(DATA * 8)
    assert len(read_all(theirs)) < len(DATA) * 8


def test_a_slow_reader_is_not_cut_off_however_long_a_chunk_takes(ends: Ends) -> None:
    client, theirs = ends
    client.patience = 1
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(read_all(theirs, pause=0.15)), daemon=True)
    reader.start()
    started = time.monotonic()
    client.sendall(DATA)
    took = time.monotonic() - started
    client.close()
    reader.join()
    assert read == [DATA]
    assert took > client.patience  # else this shows nothing


def test_a_request_that_does_not_come_in_time_is_over(ends: Ends) -> None:
    client, theirs = ends
    client.deadline = time.monotonic() + 0.3

    def dripping() -> None:
        while True:
            theirs.send(b"x")
            client.recv(1)

    with pytest.raises(ConnectionResetError):
        dripping()


def test_a_request_that_comes_is_read(ends: Ends) -> None:
    client, theirs = ends
    client.deadline = time.monotonic() + 60
    theirs.send(b"GET /")
    assert client.recv(3) == b"GET"
    assert client.gettimeout() is None
    theirs.close()
    assert (client.recv(10), client.recv(10)) == (b" /", b"")


@pytest.mark.parametrize("more", [b"", b"what nobody has read"])
def test_a_client_that_leaves_is_noticed_whatever_it_had_sent(more: bytes, ends: Ends) -> None:
    client, theirs = ends
    theirs.send(more)
    assert not has_left(client)
    theirs.close()
    assert has_left(client)
    client.close()
    assert has_left(client)


@pytest.mark.parametrize("leaves", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_client_that_ends_what_it_sends_counts_as_gone(leaves: int, ends: Ends) -> None:
    client, theirs = ends
    theirs.shutdown(leaves)
    assert has_left(client)


def test_the_last_answer_arrives_although_the_client_has_sent_more(ends: Ends) -> None:
    client, theirs = ends
    theirs.send(b"more than was read")
    client.sendall(b"the answer")
    theirs.shutdown(socket.SHUT_WR)
    client.part()
    client.close()
    assert read_all(theirs) == b"the answer"


def test_a_client_that_says_no_goodbye_is_not_waited_for(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    client, theirs = ends
    monkeypatch.setattr(live, "LINGER", 10**6)
    client.part()
    assert theirs.recv(1) == b""
    client.part()


def test_a_broken_connection_ends_for_its_reader(ends: Ends) -> None:
    client, theirs = ends
    break_connection(client)
    assert theirs.recv(1) == b""
    theirs.close()
    break_connection(client)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Where it is read, and where it is written."""
    read, written = os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(written, "wb"):
        yield read, written


def test_what_is_taken_from_a_pipe_arrives_and_is_never_more_than_was_asked(ends: Ends, pipe: tuple[int, int]) -> None:
    client, theirs = ends
    os.write(pipe[1], DATA[:PIECE])
    assert client.take(pipe[0], 1000) == 1000
    assert theirs.recv(PIECE) == DATA[:1000]
    assert os.read(pipe[0], PIECE) == DATA[1000:PIECE]
    assert client.gettimeout() is None


def test_a_reader_that_takes_nothing_of_a_pipe_is_cut_off(ends: Ends, pipe: tuple[int, int]) -> None:
    client, theirs = ends
    client.patience = 0.2

    def take_all() -> None:
        while os.write(pipe[1], DATA[:PIECE]):
            client.take(pipe[0], PIECE)

    with pytest.raises(BrokenPipeError):
        take_all()
    assert has_left(client)
    assert len(read_all(theirs)) < len(DATA) * 8


def test_a_pipe_is_not_taken_at_its_end_nor_where_the_system_cannot(
    ends: Ends, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: object, **__: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    client, _ = ends
    ended, written = os.pipe()
    os.close(written)
    assert client.take(ended, 1) == 0
    os.close(ended)
    monkeypatch.setattr(os, "splice", unable)
    assert client.take(pipe[0], 1) == 0
