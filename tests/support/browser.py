"""A headless Chromium, driven by WebDriver through plain HTTP."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError, URLError

from support.not_run import not_run
from support.processes import find_free_port, read_tail, start_process, stop_process, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT_SECONDS: Final = 60
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"  # a constant of the WebDriver standard
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-features=IsolateSandboxedIframes",  # the console of a frame in a process of its own cannot be read
)


@dataclass(frozen=True)
class Browser:
    """A window of a browser.

    Attributes:
        session: the URL of its WebDriver session.
    """

    session: str

    def open(self, url: str, *, width: int = 1300, height: int = 900) -> None:
        """Load a page in a window of a size in CSS pixels. Messages and requests of earlier pages are forgotten."""
        self.send("window/rect", {"width": width, "height": height})
        self.send("url", {"url": "about:blank"})
        self.read_messages()
        self.read_requests()
        self.send("url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page or in the frame that was entered, and return its value."""
        return self.send("execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, what: str) -> None:
        """Wait until a script returns a true value."""
        wait_until(partial(self.run, script), timeout_seconds=TIMEOUT_SECONDS, what=what)

    def enter_frame(self) -> None:
        """Let scripts run in the first frame of the page."""
        found = self.send("element", {"using": "css selector", "value": "iframe"})
        self.send("frame", {"id": {_ELEMENT: found[_ELEMENT]}})

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.send("actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def emulate(self, **features: str) -> None:
        """Set media features, such as ``prefers_color_scheme="dark"``; ``media="print"`` sets the medium."""
        medium = features.pop("media", "")
        found = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        parameters = {"media": medium, "features": found}
        self.send("goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": parameters})

    def print_page(self) -> str:
        """Return the page as PDF, in base64."""
        return str(self.send("print", {}))

    def read_messages(self) -> list[str]:
        """Return the new messages of the console: errors, warnings and violations of a policy."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.send("se/log", {"type": "browser"})]

    def read_requests(self) -> list[str]:
        """Return the URLs of the new requests of all frames."""
        events = [json.loads(entry["message"])["message"] for entry in self.send("se/log", {"type": "performance"})]
        return [found["params"]["request"]["url"] for found in events if found["method"] == "Network.requestWillBeSent"]

    def send(self, command: str, body: dict[str, Any]) -> Any:
        """Send a command of the session, and return its value."""
        return _send(f"{self.session}/{command}", body)


@contextmanager
def run_browser(directory: Path) -> Iterator[Browser]:
    """Yield a headless Chromium with a new profile, and end it. Without Chromium, the test is reported as NOT RUN."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        not_run("Chromium is missing; install the packages chromium and chromium-driver")
    port = find_free_port()
    log = directory / "chromedriver.log"
    process = start_process([driver, f"--port={port}"], env=dict(os.environ), cwd=directory, log=log)
    try:
        service = f"http://127.0.0.1:{port}"
        wait_until(lambda: _is_ready(service), timeout_seconds=TIMEOUT_SECONDS, what=f"chromedriver: {read_tail(log)}")
        options = {"binary": chromium, "args": [*_FLAGS, f"--user-data-dir={directory / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = _send(f"{service}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        yield Browser(f"{service}/session/{session}")
    finally:
        stop_process(process)


@dataclass
class PageServer:
    """A server of a directory on this machine.

    Attributes:
        url: its address.
        paths: the paths that were requested.
    """

    url: str
    paths: list[str] = field(default_factory=list)


@contextmanager
def serve_pages(directory: Path) -> Iterator[PageServer]:
    """Serve the files of a directory."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pages.paths.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory))) as server:
        pages = PageServer(f"http://127.0.0.1:{server.server_address[1]}")
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield pages
        finally:
            server.shutdown()
            thread.join()


def _is_ready(service: str) -> bool:
    try:
        return bool(_send(f"{service}/status", None)["ready"])
    except URLError:
        return False


def _send(url: str, body: dict[str, Any] | None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return json.load(response)["value"]
    except HTTPError as error:
        message = json.load(error)["value"]["message"]
        raise AssertionError(f"{url}: {message}") from None
