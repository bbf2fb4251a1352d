"""The steps of an update, and the way back, which is written down before the first of them.

1. The release is signed, its package fits the machine and is newer; the package of the installed release is kept.
2. `go-back.sh` and a unit that runs it at the next boot are on the disk: from here on a power cut ends in the old one.
3. Each site that runs is ended with the setpoint at 0 W.
4. The package goes on; the new release checks every site file before any site starts.
5. The sites start; each must come to the mode that it had, or a better one, and stay there.
6. The unit of the way back is taken away. If any step fails, `go-back.sh` is run at once.

Nothing of this process is imported after step 4: the files that it would come from are the other release's by then.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate.runtime.update import debian_system
from tidegate.runtime.update.release import Package, UpdateError, described, newer
from tidegate.runtime.update.signed_sums import digest

FOLDER = Path("/var/lib/tidegate-updates")  # not the service's: what root runs at boot lies here
BOOT_UNIT = Path("/etc/systemd/system/tidegate-go-back.service")
BOOT_LINK = BOOT_UNIT.parent / "multi-user.target.wants" / BOOT_UNIT.name
KEPT = "previous.deb"
HELD_S = 20.0  # so long must a site be well before the way back is taken away
HEALTHY_S = 240.0
ROOM = 6  # times the package: itself, its copy, and both releases unpacked
GOOD = ("run", "derated")

Report = Callable[[str], None]

GO_BACK = """#!/bin/sh
# Puts the release {old} back. Written by `tidegate update` before it began; needs nothing of the new one.
export DEBIAN_FRONTEND=noninteractive
echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) going back to {old}" >>{folder}/history
systemctl stop 'tidegate@*.service'
dpkg --force-confold --force-confdef --configure -a
dpkg --force-confold --force-confdef --force-downgrade --install {folder}/{kept} || exit 1
rm -f {link} {unit}
systemctl daemon-reload
units="{units}"
[ -z "$units" ] || systemctl start --no-block $units
echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) is {old} again" >>{folder}/history
"""
AT_BOOT = """[Unit]
Description=Tidegate: an update did not come to its end, the release before is put back
Before=multi-user.target {units}
[Service]
Type=oneshot
ExecStart=/bin/sh {folder}/go-back.sh
TimeoutStartSec=1200
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A site that runs when the update begins. mode : its mode then; "" = it did not answer."""

    unit: str
    name: str
    mode: str


def check(new: Package, old: str | None) -> None:
    """Whether a package may go on here. Raises UpdateError."""
    if os.geteuid() != 0:
        raise UpdateError("an update changes the machine's packages; run it as root")
    if old is None:
        raise UpdateError("this machine has no Debian package of Tidegate; update it as it was installed")
    if new.version == old:
        raise UpdateError(f"{old} is installed already")
    if not newer(new.version, old):
        raise UpdateError(
            f"{new.version} is older than {old}, which is installed; to go back: tidegate update rollback"
        )


def keep_previous(old: str, folder: Path = FOLDER, given: Path | None = None) -> Path:
    """The package of the installed release, where the way back finds it. Raises UpdateError if there is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    cached = sorted(Path("/var/cache/apt/archives").glob("tidegate_*.deb"))
    places = [given] if given is not None else [folder / KEPT, *cached]
    for path in places:
        if path.is_file():
            found = described(path)
            if found.version == old:
                if path != folder / KEPT:
                    copy(path, folder / KEPT)
                return folder / KEPT
            if given is not None:
                raise UpdateError(f"{given}: {found.version}, but {old} is installed; give that one")
    raise UpdateError(
        f"no package of {old}, which is installed, to go back to; give it with --previous FILE (the release that this "
        "machine was installed from)"
    )


def copy(source: Path, target: Path) -> None:
    """A file's bytes under another name, on the disk when this returns."""
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(source, part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    sync(target.parent)


def sync(folder: Path) -> None:
    """The names in a folder, on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def put(path: Path, text: str, mode: int) -> None:
    """A file with this text, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.chmod(mode)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    sync(path.parent)


def prepare_way_back(old: str, sites: list[Site], folder: Path = FOLDER) -> Path:
    """Write `go-back.sh` and the unit that runs it at a boot."""
    script = folder / "go-back.sh"
    units = " ".join(site.unit for site in sites)
    text = GO_BACK.format(old=old, folder=folder, kept=KEPT, link=BOOT_LINK, unit=BOOT_UNIT, units=units)
    put(script, text, 0o700)
    put(BOOT_UNIT, AT_BOOT.format(folder=folder, units=units), 0o644)
    BOOT_LINK.parent.mkdir(exist_ok=True)
    if not BOOT_LINK.is_symlink():
        BOOT_LINK.symlink_to(BOOT_UNIT)
    sync(BOOT_LINK.parent)
    return script


def take_way_back_away() -> None:
    """The new release is good: a boot goes on with it."""
    BOOT_LINK.unlink(missing_ok=True)
    BOOT_UNIT.unlink(missing_ok=True)
    sync(BOOT_LINK.parent)
    debian_system.tried("systemctl", "daemon-reload")


def room_for(package: Path, folder: Path) -> None:
    """Raises UpdateError where a disk would be full before the end."""
    need = package.stat().st_size * ROOM
    for place in (folder, Path("/usr")):
        free = shutil.disk_usage(place).free
        if free < need:
            raise UpdateError(
                f"{place}: {free / 1e6:.0f} MB free, an update needs {need / 1e6:.0f} MB; nothing was changed"
            )


def running_sites() -> list[Site]:
    """The sites that run, and the mode of each."""
    found = []
    for unit in debian_system.running_units():
        name = debian_system.site_name(unit)
        found.append(Site(unit, name, str((debian_system.why(name) or {}).get("mode", ""))))
    return found


def unwell(site: Site) -> str:
    """Why a site is not as well as it was; "" = it is."""
    answer = debian_system.why(site.name)
    if answer is None:
        return "gives no answer"
    mode = str(answer.get("mode", ""))
    return "" if mode in GOOD or mode == site.mode else f"is in mode {mode or 'none'}, was in {site.mode or 'none'}"


def wait_until_well(sites: list[Site], report: Report, within_s: float = HEALTHY_S, held_s: float = HELD_S) -> str:
    """What is still wrong when the time is over; "" once all sites have been well for a while."""
    until, well_since, told = time.monotonic() + within_s, 0.0, ""
    while True:
        wrong = "; ".join(f"{site.name} {what}" for site in sites if (what := unwell(site)))
        now = time.monotonic()
        if wrong != told and wrong:
            report(f"waiting: {wrong}")
        told, well_since = wrong, (well_since or now) if not wrong else 0.0
        if well_since and now - well_since >= held_s:
            return ""
        if now > until:
            return wrong or "not well for long enough"
        time.sleep(1.0)


def install(package: Path) -> None:
    """Put a package on; dpkg's own words are the error's. Raises UpdateError."""
    debian_system.said(
        "dpkg", "--force-confold", "--force-confdef", "--install", str(package), timeout_s=debian_system.INSTALL_S
    )  # fmt: skip


def apply(new: Package, previous: Path | None, report: Report, folder: Path = FOLDER) -> None:
    """Put a package of a signed release on. Raises UpdateError; the old release runs then."""
    old = debian_system.installed()
    check(new, old)
    assert old is not None
    room_for(new.path, folder.parent)
    keep_previous(old, folder, previous)
    copy(new.path, folder / "new.deb")
    if digest(folder / "new.deb") != new.sha256:
        raise UpdateError(f"{new.path}: changed while it was copied; nothing was changed")
    sites = running_sites()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the line to whoever types may be lost: it ends well or goes back
    history(folder, f"updating {old} to {new.version}, signed sha256 {new.sha256}")
    script = prepare_way_back(old, sites, folder)
    units = [site.unit for site in sites]
    try:
        for site in sites:
            report(f"{site.name}: to 0 W and ended (was in mode {site.mode or 'unknown'})")
        debian_system.stop(units)
    except UpdateError:
        debian_system.start(units)
        take_way_back_away()
        raise
    try:
        report(f"installing {new.version}")
        install(folder / "new.deb")
        for site in sites:
            done = debian_system.tried("/usr/bin/tidegate", "check", str(debian_system.site_file(site.unit)))
            if done.returncode:
                raise UpdateError(
                    f"{site.name}: {new.version} does not take its site file: {done.stderr.strip()[-400:]}"
                )
        wrong = debian_system.start(units)
        if not wrong:
            wrong = wait_until_well(sites, report)
        if wrong:
            raise UpdateError(wrong)
    except (UpdateError, OSError, KeyboardInterrupt) as why:
        error = str(why) or "interrupted"
        report(f"{error}; going back to {old}")
        history(folder, f"{new.version} does not work here: {error}")
        went = debian_system.tried("/bin/sh", str(script), timeout_s=debian_system.INSTALL_S)
        if went.returncode:
            raise UpdateError(
                f"{error}. AND {old} COULD NOT BE PUT BACK ({went.stderr.strip()[-300:]}): the sites stand, the boot "
                f"tries again; by hand: sh {script}"
            ) from None
        raise UpdateError(f"{error}. {old} was put back") from None
    take_way_back_away()
    copy(folder / KEPT, folder / "before.deb")
    os.replace(folder / "new.deb", folder / KEPT)
    history(folder, f"is {new.version}")


def roll_back(report: Report, folder: Path = FOLDER) -> str:
    """The release before the last update, put back. -> its version. Raises UpdateError."""
    if os.geteuid() != 0:
        raise UpdateError("going back changes the machine's packages; run it as root")
    before = folder / "before.deb"
    if not before.is_file():
        raise UpdateError("no release of before is kept here: `tidegate update apply` keeps the one that it replaced")
    found, now = described(before), debian_system.installed()
    if now == found.version:
        raise UpdateError(f"{now} is installed already")
    sites = running_sites()
    debian_system.stop([site.unit for site in sites])
    copy(before, folder / KEPT)
    script = prepare_way_back(found.version, sites, folder)
    report(f"putting {found.version} back")
    debian_system.said("/bin/sh", str(script), timeout_s=debian_system.INSTALL_S)
    before.unlink()
    wrong = wait_until_well(sites, report)
    if wrong:
        raise UpdateError(f"{found.version} is installed again, but {wrong}; see journalctl")
    return found.version


def history(folder: Path, text: str) -> None:
    """A line of what was done, on the disk."""
    with (folder / "history").open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {json.dumps(text)[1:-1]}\n")
        file.flush()
        os.fsync(file.fileno())
