"""A PostgreSQL server of the tests' own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.support.tools import LOCALHOST, Listener, end, frozen, start_listener, wait_until

USER = "postgres"
# The server trusts everybody; the password is there so that a test sees it told.
SECRET = "invented-password"


@dataclass
class PostgreSQL:
    """The server; it can be killed, frozen, and started again."""

    directory: Path
    port: int
    address: str = LOCALHOST
    inside: Sequence[str] = ()
    process: Listener | None = field(default=None)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}:{SECRET}@{self.address}:{self.port}/{database}"

    def start(self) -> None:
        options = {
            "listen_addresses": self.address,
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        argv = (*self.inside, *_as_user(), _program("postgres"), "-D", self.directory / "data", *words)
        self.process = start_listener(argv, self.port, self.directory.with_suffix(".log"), seconds=60)
        wait_until(self._answers, 30, self.directory.with_suffix(".log").read_text)

    def kill(self) -> None:
        """It ends its connections, and itself; a backend has a process group of its own."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        wait_until(lambda: self.process is None or self.process.poll() is not None, 30, str)
        end(self.process)
        self.process = None

    def frozen(self) -> AbstractContextManager[None]:
        assert self.process is not None
        return frozen(self.process)

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run the statements; the rows of the last one."""
        options = {"host": self.address, "port": self.port, "user": USER, "dbname": database, "connect_timeout": 5}
        with psycopg.connect(autocommit=True, **options) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _answers(self) -> bool:
        try:
            return self.execute("SELECT 1") == [(1,)]
        except psycopg.Error:
            return False


def _program(name: str) -> Path:
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))


def _as_user() -> tuple[str, ...]:
    """PostgreSQL refuses to run as root."""
    return ("/usr/bin/setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups") if os.geteuid() == 0 else ()


@contextmanager
def running_postgres(port: int, address: str = LOCALHOST, inside: Sequence[str] = ()) -> Iterator[PostgreSQL]:
    """A server that listens at the address, perhaps in a network namespace (`inside`), and admits its neighbours."""
    # Not in a directory of pytest's, which the server's user may not enter.
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = PostgreSQL(directory, port, address, inside)
    try:
        if _as_user():
            user = pwd.getpwnam(USER)
            os.chown(directory, user.pw_uid, user.pw_gid)
        options = ("-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        argv = (*_as_user(), _program("initdb"), "-D", directory / "data", *options)
        subprocess.run(argv, check=True, capture_output=True, timeout=120, cwd="/")
        with (directory / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all samenet trust\n")
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.kill()
        shutil.rmtree(directory)
        directory.with_suffix(".log").unlink(missing_ok=True)
