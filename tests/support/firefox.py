"""Debian's Firefox, driven by Marionette, which it brings itself: https://firefox-source-docs.mozilla.org/testing/marionette/

A message is its length, a colon and JSON: `[0, id, command, parameters]`, answered by `[1, id, error, result]`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.allowance import require_room_for_a_browser
from tests.support.ports import free_ports

DEBIANS = "/usr/bin/firefox-esr"
FIREFOX = os.environ.get("FIREFOX", DEBIANS)  # another, where the host's limits do not let Debian's start
PREFERENCES = {
    "app.normandy.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.filesystem.pathcheck.disabled": True,  # a test has no window in which a person could choose a folder
    "intl.accept_languages": "en",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.proxy.socks": "127.0.0.1",
    "network.proxy.socks_port": 9,  # nothing listens there: offline but for files
    "network.proxy.type": 1,
    "services.settings.server": "data:,",
}
CHOOSE = "arguments[0].mozSetDndFilesAndDirectories([new Directory(arguments[1])])"


class Firefox:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile("rb")
        self._answer()
        self.ask("WebDriver:NewSession", capabilities={})
        self.ask("WebDriver:SetTimeouts", script=60_000)

    def ask(self, command: str, **parameters: Any) -> Any:
        self._connection.sendall(_message([0, 1, command, parameters]))
        _, _, error, result = self._answer()
        assert error is None, error
        return result

    def open(self, file: Path) -> None:
        self.ask("WebDriver:Navigate", url=file.as_uri())

    def evaluate(self, expression: str) -> Any:
        """What the expression is, once it is there where it is a promise."""
        return self.ask("WebDriver:ExecuteScript", script=f"return ({expression})", args=[])["value"]

    def choose_folder(self, selector: str, folder: Path) -> None:
        found = self.ask("WebDriver:FindElement", using="css selector", value=selector)["value"]
        self.ask("WebDriver:ExecuteScript", script=CHOOSE, args=[found, str(folder)], sandbox="system")

    def wait_for(self, expression: str, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < until, expression
            time.sleep(0.05)

    def _answer(self) -> Any:
        digits = b""
        while (digit := self._answers.read(1)) != b":":
            assert digit, "Firefox has hung up"
            digits += digit
        return json.loads(self._answers.read(int(digits)))


@contextmanager
def firefox(profile: Path) -> Iterator[Firefox]:
    """Firefox without a window, and with a profile of its own, which is made in this directory."""
    if FIREFOX == DEBIANS:
        require_room_for_a_browser()
    (port,) = free_ports(1)
    lines = {**PREFERENCES, "marionette.port": port}
    preferences = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in lines.items())
    (profile / "user.js").write_text("".join(preferences))
    argv = (FIREFOX, "--headless", "--marionette", "--profile", str(profile), "about:blank")
    with (profile / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            with _connected(port, process) as connection:
                browser = Firefox(connection)
                yield browser
                browser.ask("Marionette:Quit", flags=["eForceQuit"])
        finally:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def _connected(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> socket.socket:
    until = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=120)
        except OSError:
            assert process.poll() is None, "Firefox has ended"
            assert time.monotonic() < until, "Firefox does not listen"
            time.sleep(0.1)


def _message(content: object) -> bytes:
    text = json.dumps(content).encode()
    return b"%d:%b" % (len(text), text)
