"""Find or make the Kubo binary (`ipfs`) that the tests compare us with.

In this order, and it says which way it took:

1. ``TESTS_KUBO``, if set: that binary or an error.
2. ``ipfs`` on PATH, if new enough.
3. What an earlier call left under ``.cache/kubo`` in this directory.
4. The official release, checked against the SHA-512 that is published beside it.
5. A build from Kubo's Go module, which Go checks against its checksum database.

Run as a script it prints the binary's path as its last line, and exits with 1 if there is none.
Standard library only: it runs beside the installation of everything else.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GOLDEN_VERSION: Final = "0.43.0"  # made tests/vectors
MIN_VERSION: Final = (0, 40)  # the first with the profiles of IPIP-0499 as they were ratified
CACHE: Final = Path(__file__).resolve().parent.parent / ".cache" / "kubo" / GOLDEN_VERSION
RELEASES: Final = "https://dist.ipfs.tech/kubo"
GO_MODULE: Final = f"github.com/ipfs/kubo@v{GOLDEN_VERSION}"

CONNECT_TIMEOUT_SECONDS: Final = 10  # per connection and read: without a network the next way is tried soon
DOWNLOAD_LIMIT_SECONDS: Final = 300
MAX_ARCHIVE_BYTES: Final = 200 << 20  # a release has about 50 MB
BUILD_TIMEOUT_SECONDS: Final = 1500


class KuboError(Exception):
    """This way does not lead to a binary; the message says why."""


def say(text: str) -> None:
    """Print progress where it does not mix with the path that is the result."""
    print(f"kubo: {text}", file=sys.stderr, flush=True)


def read_version(binary: Path) -> tuple[int, ...]:
    """Ask a binary for its version.

    Raises:
        KuboError: it does not run, or does not answer like Kubo.
    """
    try:
        done = subprocess.run(
            [binary, "version", "--number"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        msg = f"{binary} does not run: {error}"
        raise KuboError(msg) from error
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    if not match:
        msg = f"{binary} is not Kubo: `version --number` printed {done.stdout[:80]!r}"
        raise KuboError(msg)
    return tuple(int(part) for part in match.groups())


def check_version(binary: Path) -> Path:
    """Return the binary if it is new enough.

    Raises:
        KuboError: it is too old, or no Kubo.
    """
    version = read_version(binary)
    text = ".".join(map(str, version))
    if version < MIN_VERSION:
        msg = f"{binary} is Kubo {text}; {'.'.join(map(str, MIN_VERSION))} or newer is needed"
        raise KuboError(msg)
    if text != GOLDEN_VERSION:
        say(f"note: {binary} is {text}, the golden vectors were made by {GOLDEN_VERSION}")
    return binary


def from_path() -> Path:
    """Take the `ipfs` on PATH."""
    found = shutil.which("ipfs")
    if not found:
        msg = "no `ipfs` on PATH"
        raise KuboError(msg)
    return check_version(Path(found))


def from_cache() -> Path:
    """Take what an earlier call made."""
    binary = CACHE / "ipfs"
    if not binary.exists():
        msg = "nothing in .cache/kubo yet"
        raise KuboError(msg)
    return check_version(binary)


def from_release() -> Path:
    """Download the official release and check its SHA-512."""
    name = f"kubo_v{GOLDEN_VERSION}_{_platform_name()}.tar.gz"
    url = f"{RELEASES}/v{GOLDEN_VERSION}/{name}"
    say(f"looking for the official release {name}")
    expected = _download(f"{url}.sha512", 4096).decode(errors="replace").partition(" ")[0]
    archive = _download(url, MAX_ARCHIVE_BYTES)
    actual = hashlib.sha512(archive).hexdigest()
    if actual != expected:
        msg = f"{name} has SHA-512 {actual}, its release says {expected}"
        raise KuboError(msg)
    _install(_extract(archive, name))
    say(f"took the official release {GOLDEN_VERSION}, SHA-512 {expected[:16]}…")
    return from_cache()


def _extract(archive: bytes, name: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.extractfile("kubo/ipfs")
            if member is not None:
                return member.read()
    except (KeyError, tarfile.TarError):
        pass
    msg = f"{name} holds no kubo/ipfs"
    raise KuboError(msg)


def from_go_module() -> Path:
    """Build the released version from its Go module."""
    if not shutil.which("go"):
        msg = "no `go` on PATH to build it with"
        raise KuboError(msg)
    say(f"building {GO_MODULE}, a few minutes; the log is {CACHE / 'build.log'}")
    started = time.monotonic()
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / f"ipfs.{os.getpid()}"
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": ""}  # no C compiler, no flags of other projects
    with (CACHE / "build.log").open("w+b") as log:
        downloaded = _run_logged(["go", "mod", "download", "-json", GO_MODULE], log, environment)
        source = json.loads(downloaded)["Dir"]
        _run_logged(["go", "build", "-C", source, "-trimpath", "-o", str(made), "./cmd/ipfs"], log, environment)
    made.replace(CACHE / "ipfs")
    say(f"built {GOLDEN_VERSION} from its Go module in {time.monotonic() - started:.0f} s")
    return from_cache()


def _platform_name() -> str:
    systems = {"Linux": "linux", "Darwin": "darwin"}
    machines = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    system = systems.get(platform.system())
    machine = machines.get(platform.machine().lower())
    if not system or not machine:
        msg = f"no release for {platform.system()} on {platform.machine()}"
        raise KuboError(msg)
    return f"{system}-{machine}"


def _download(url: str, max_bytes: int) -> bytes:
    deadline = time.monotonic() + DOWNLOAD_LIMIT_SECONDS
    parts: list[bytes] = []
    size = 0
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_SECONDS) as answer:
            while part := answer.read(1 << 20):
                parts.append(part)
                size += len(part)
                if size > max_bytes or time.monotonic() > deadline:
                    msg = f"{url}: gave up after {size} bytes"
                    raise KuboError(msg)
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        msg = f"{url}: {error}"
        raise KuboError(msg) from error
    return b"".join(parts)


def _run_logged(command: list[str], log: BinaryIO, environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            timeout=BUILD_TIMEOUT_SECONDS,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.flush()
        end = Path(log.name).read_bytes()[-2000:].decode(errors="replace").strip()
        msg = f"{' '.join(command[:3])} failed ({error}), its last words:\n{end}"
        raise KuboError(msg) from error
    return done.stdout


def _install(binary: bytes) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / f"ipfs.{os.getpid()}"
    made.write_bytes(binary)
    made.chmod(0o755)
    made.replace(CACHE / "ipfs")


def locate() -> Path:
    """Find a binary without downloading or building.

    Raises:
        KuboError: there is none; the message names the ways tried.
    """
    override = os.environ.get("TESTS_KUBO")
    if override:
        return check_version(Path(override))
    return _first_of((from_path, from_cache))


def provision() -> Path:
    """Find a binary, or get one.

    Raises:
        KuboError: no way worked; the message says why, way by way.
    """
    if os.environ.get("TESTS_KUBO"):
        return locate()
    return _first_of((from_path, from_cache, from_release, from_go_module))


def _first_of(ways: Sequence[Callable[[], Path]]) -> Path:
    reasons: list[str] = []
    for way in ways:
        try:
            return way()
        except KuboError as error:
            reasons.append(str(error))
    raise KuboError("; ".join(reasons))


def main() -> int:
    """Provide a binary and print its path."""
    try:
        binary = provision()
    except KuboError as error:
        say(f"none to be had: {error}")
        return 1
    say(f"using {binary}, version {'.'.join(map(str, read_version(binary)))}")
    print(binary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
