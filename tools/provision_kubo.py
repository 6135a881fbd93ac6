"""Find or make the Kubo binary (`ipfs`) that the tests compare the package with.

The sources are tried in this order, and the output names the source that was used:

1. ``TESTS_KUBO``, if set: that binary, or an error.
2. ``ipfs`` on PATH, if it is new enough.
3. The binary that an earlier call has written to ``.cache/kubo`` in the project directory.
4. The official release, checked against the SHA-512 that is published with it.
5. A build from Kubo's Go module, which Go checks against its checksum database.

As a script, it prints the path of the binary as its last line, and exits with 1 if no binary is available.
It uses only the standard library, because it runs while the other dependencies are installed.
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

GOLDEN_VERSION: Final = "0.43.0"  # version that made tests/vectors
MIN_VERSION: Final = (0, 40)  # first version with the ratified profiles of IPIP-0499
CACHE: Final = Path(__file__).resolve().parent.parent / ".cache" / "kubo" / GOLDEN_VERSION
RELEASES: Final = "https://dist.ipfs.tech/kubo"
GO_MODULE: Final = f"github.com/ipfs/kubo@v{GOLDEN_VERSION}"

CONNECT_TIMEOUT_SECONDS: Final = 10  # per connection and read; short, so that the next source is tried soon
DOWNLOAD_LIMIT_SECONDS: Final = 300
MAX_ARCHIVE_BYTES: Final = 200 << 20  # a release has about 50 MB
BUILD_TIMEOUT_SECONDS: Final = 1500


class KuboError(Exception):
    """Error that a source does not provide a binary; the message gives the reason."""


def say(text: str) -> None:
    """Print progress to standard error, because standard output contains the resulting path."""
    print(f"kubo: {text}", file=sys.stderr, flush=True)


def read_version(binary: Path) -> tuple[int, ...]:
    """Return the version of a binary.

    Raises:
        KuboError: the binary does not run, or is not Kubo.
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
        msg = f"{binary} cannot be run: {error}"
        raise KuboError(msg) from error
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    if not match:
        msg = f"{binary} is not Kubo: `version --number` printed {done.stdout[:80]!r}"
        raise KuboError(msg)
    return tuple(int(part) for part in match.groups())


def check_version(binary: Path) -> Path:
    """Return the binary if it is new enough.

    Raises:
        KuboError: the binary is too old, or is not Kubo.
    """
    version = read_version(binary)
    text = ".".join(map(str, version))
    if version < MIN_VERSION:
        msg = f"{binary} is Kubo {text}, but {'.'.join(map(str, MIN_VERSION))} or newer is required"
        raise KuboError(msg)
    if text != GOLDEN_VERSION:
        say(f"note: {binary} is {text}, but the golden vectors were made by {GOLDEN_VERSION}")
    return binary


def from_path() -> Path:
    """Return the `ipfs` on PATH."""
    found = shutil.which("ipfs")
    if not found:
        msg = "`ipfs` is not on PATH"
        raise KuboError(msg)
    return check_version(Path(found))


def from_cache() -> Path:
    """Return the binary that an earlier call made."""
    binary = CACHE / "ipfs"
    if not binary.exists():
        msg = ".cache/kubo does not contain a binary"
        raise KuboError(msg)
    return check_version(binary)


def from_release() -> Path:
    """Download the official release and check its SHA-512."""
    name = f"kubo_v{GOLDEN_VERSION}_{_platform_name()}.tar.gz"
    url = f"{RELEASES}/v{GOLDEN_VERSION}/{name}"
    say(f"downloading the official release {name}")
    expected = _download(f"{url}.sha512", 4096).decode(errors="replace").partition(" ")[0]
    archive = _download(url, MAX_ARCHIVE_BYTES)
    actual = hashlib.sha512(archive).hexdigest()
    if actual != expected:
        msg = f"{name} has SHA-512 {actual}, but the published checksum is {expected}"
        raise KuboError(msg)
    _install(_extract(archive, name))
    say(f"installed the official release {GOLDEN_VERSION}, SHA-512 {expected[:16]}…")
    return from_cache()


def _extract(archive: bytes, name: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.extractfile("kubo/ipfs")
            if member is not None:
                return member.read()
    except (KeyError, tarfile.TarError):
        pass
    msg = f"{name} does not contain kubo/ipfs"
    raise KuboError(msg)


def from_go_module() -> Path:
    """Build the released version from its Go module."""
    if not shutil.which("go"):
        msg = "`go`, which is needed to build Kubo, is not on PATH"
        raise KuboError(msg)
    say(f"building {GO_MODULE}, which takes a few minutes; the log is {CACHE / 'build.log'}")
    started = time.monotonic()
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / f"ipfs.{os.getpid()}"
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": ""}  # without a C compiler and the user's flags
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
        msg = f"Kubo has no known release for {platform.system()} on {platform.machine()}"
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
                    msg = f"{url}: the download exceeded the limit of size or time after {size} bytes"
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
        log_end = Path(log.name).read_bytes()[-2000:].decode(errors="replace").strip()
        msg = f"{' '.join(command[:3])} failed ({error}); the end of its output:\n{log_end}"
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
        KuboError: no binary was found; the message gives the reason for each source.
    """
    override = os.environ.get("TESTS_KUBO")
    if override:
        return check_version(Path(override))
    return _first_of((from_path, from_cache))


def provision() -> Path:
    """Find a binary, or download or build it.

    Raises:
        KuboError: no source provided a binary; the message gives the reason for each source.
    """
    if os.environ.get("TESTS_KUBO"):
        return locate()
    return _first_of((from_path, from_cache, from_release, from_go_module))


def _first_of(sources: Sequence[Callable[[], Path]]) -> Path:
    reasons: list[str] = []
    for source in sources:
        try:
            return source()
        except KuboError as error:
            reasons.append(str(error))
    raise KuboError("; ".join(reasons))


def main() -> int:
    """Provide a binary and print its path."""
    try:
        binary = provision()
    except KuboError as error:
        say(f"no binary is available: {error}")
        return 1
    say(f"using {binary}, version {'.'.join(map(str, read_version(binary)))}")
    print(binary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
