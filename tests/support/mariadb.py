"""A MariaDB server of the tests' own, with the notes' two databases, one of them Latin-1."""

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pymysql

from tests.support.tools import LOCALHOST, Listener, end, frozen, start_listener, wait_until

SCHEMA = (
    "CREATE DATABASE pacsdb_his CHARACTER SET utf8mb4",
    "CREATE TABLE pacsdb_his.pacs_result_series"
    " (AccessionNumber VARCHAR(64) PRIMARY KEY, MEDRECID VARCHAR(16), RegID VARCHAR(16))",
    "CREATE DATABASE rsabt201107 CHARACTER SET latin1",
    "CREATE TABLE rsabt201107.medrec (MEDRECID VARCHAR(16) PRIMARY KEY, NamaPasien VARCHAR(64))",
)
HIS, MEDREC = "pacsdb_his", "rsabt201107"


@dataclass
class MariaDB:
    """The server; it can be killed, frozen, and started again."""

    directory: Path
    port: int
    process: Listener | None = field(default=None)

    def url(self, database: str) -> str:
        return f"mysql+pymysql://root@{LOCALHOST}:{self.port}/{database}"

    def start(self) -> None:
        argv = (
            "/usr/sbin/mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={self.directory}/data",
            f"--tmpdir={self.directory}",  # a server that starts removes what it finds there of another's tables
            f"--socket={self.directory}/mariadb.sock",
            f"--bind-address={LOCALHOST}",
            f"--port={self.port}",
        )
        self.process = start_listener(argv, self.port, self.directory / "log", seconds=60)
        wait_until(self._answers, 30, (self.directory / "log").read_text)

    def kill(self) -> None:
        assert self.process is not None
        end(self.process)
        self.process = None

    def frozen(self) -> AbstractContextManager[None]:
        assert self.process is not None
        return frozen(self.process)

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """Run the statements; the rows of the last one."""
        connection = pymysql.connect(host=LOCALHOST, port=self.port, user="root", autocommit=True, ssl_disabled=True)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def _answers(self) -> bool:
        try:
            return self.execute("SELECT 1") == [(1,)]
        except pymysql.Error:
            return False


@contextmanager
def running_mariadb(directory: Path, port: int) -> Iterator[MariaDB]:
    directory.mkdir()
    install = (
        "/usr/bin/mariadb-install-db",
        "--no-defaults",
        "--user=root",
        "--auth-root-authentication-method=normal",
        f"--datadir={directory}/data",
        f"--tmpdir={directory}",
    )
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    server = MariaDB(directory, port)
    server.start()
    try:
        server.execute(*SCHEMA)
        yield server
    finally:
        if server.process is not None:
            server.kill()
