"""What the doctor sees of disk, folders and versions."""

import importlib.metadata
import importlib.util
import os
import platform
import stat
import tempfile
import time
from pathlib import Path
from statistics import median

from tidegate.config.site import Site
from tidegate.runtime.commissioning.machine import COSTS, FIX, OK, Finding
from tidegate.runtime.state import paths

SYNCS = 20
BETTER = "an SSD or eMMC instead of an SD card"
SYNC_MS_GOOD = 25.0
SYNC_MS_BAD = 100.0  # the gateway syncs in groups of at most 100 ms
FREE_MB_MIN = 256
SHOWN = ("tidegate", "numpy", "pyzmq", "pyserial", "pymodbus", "python-can", "pydantic")
EXTRAS = {"carbon": "sqlalchemy", "commission": "tomlkit", "export": "prometheus_client"}


def look(site: Site | None) -> list[Finding]:
    """Disk, folders, versions."""
    name = site.site.name if site is not None else "doctor"
    state = paths.state_root() / paths.folder_name(name)
    wanted_mb = site.gateway.journal_mb_max if site is not None else 0
    return [
        folder("state folder", state),
        folder("runtime folder", paths.runtime_root() / paths.folder_name(name)),
        *disk(state, wanted_mb),
        versions(),
    ]


def nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def folder(topic: str, path: Path) -> Finding:
    """Whether this user may keep files there, and others may not change them."""
    there = nearest(path)
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = (
            "run as the user that runs the site (sudo -u tidegate), or set TIDEGATE_STATE_DIR, TIDEGATE_RUNTIME_DIR"
        )
        return Finding(topic, FIX, f"{there}: this user may not write there", remedy)
    if path.exists():
        seen = path.stat()
        if seen.st_uid != os.geteuid():
            said = (
                f"{path} belongs to user {seen.st_uid}, this is {os.geteuid()}: a site run by this user would refuse it"
            )
            return Finding(topic, COSTS, said, "sudo -u tidegate tidegate doctor ...")
        if seen.st_mode & stat.S_IWOTH:
            return Finding(topic, FIX, f"{path} can be written by everybody", f"chmod o-w {path}")
    return Finding(topic, OK, str(path) + ("" if path.exists() else " (will be made)"))


def disk(state: Path, wanted_mb: int) -> list[Finding]:
    """Room for the journal, and how long a sync takes there."""
    there = nearest(state)
    room = os.statvfs(there)
    free_mb = room.f_bavail * room.f_frsize >> 20
    found = [Finding("disk space", OK, f"{free_mb} MB free at {there}", "", {"free_mb": free_mb})]
    if free_mb < max(FREE_MB_MIN, wanted_mb):
        found[0] = Finding(
            "disk space", COSTS if free_mb >= FREE_MB_MIN else FIX,
            f"{free_mb} MB free at {there}, the journal may grow to {max(wanted_mb, FREE_MB_MIN)} MB",
            "make room, or set [gateway] journal_mb_max smaller", {"free_mb": free_mb},
        )  # fmt: skip
    return [*found, sync_time(there)]


def sync_time(there: Path) -> Finding:
    """Median and worst of some small syncs."""
    took = []
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            for _ in range(SYNCS):
                file.write(bytes(4096))
                begin = time.monotonic()
                file.flush()
                os.fdatasync(file.fileno())
                took.append((time.monotonic() - begin) * 1e3)
    except OSError as error:
        return Finding(
            "disk sync", FIX, f"{there}: {error.strerror}", "give the state folder a disk that can be written"
        )
    values: dict[str, object] = {"median_ms": round(median(took), 2), "max_ms": round(max(took), 2)}
    said = f"{median(took):.1f} ms, worst of {SYNCS}: {max(took):.1f} ms, at {there}"
    if max(took) > SYNC_MS_BAD:
        return Finding("disk sync", COSTS, said + ": orders wait for the disk", BETTER, values)
    if median(took) > SYNC_MS_GOOD:
        return Finding("disk sync", COSTS, said + ": records are published late", BETTER, values)
    return Finding("disk sync", OK, said, "", values)


def versions() -> Finding:
    """What is installed, and whether the compiled parts fit each other."""
    found = {}
    for name in SHOWN:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    from tidegate.ext.abi import image, shared
    from tidegate.ext.cycle import loop

    missing = [extra for extra, module in EXTRAS.items() if importlib.util.find_spec(module) is None]
    values: dict[str, object] = {**found, "python": platform.python_version(), "extras_missing": missing}
    said = f"tidegate {found['tidegate']}, Python {platform.python_version()}, pyzmq {found['pyzmq']}"
    try:
        image.check_layouts((image, loop, shared))
    except RuntimeError as error:
        return Finding(
            "versions", FIX, f"{said}; {error}", "install the package again: its compiled parts do not fit", values
        )
    if missing:
        said += f"; extras not installed: {', '.join(missing)}"
        return Finding("versions", OK, said, f"pip install 'tidegate[{','.join(missing)}]', if wanted", values)
    return Finding("versions", OK, said, "", values)
