"""The machine under an update: its package manager and its units. Every call is a program of the system."""

import json
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tidegate.runtime.update.release import PACKAGE, UpdateError

SITE_FILES = Path(f"/etc/{PACKAGE}")
UNITS = "tidegate@*.service"
STOP_S, INSTALL_S, ASK_S = 120.0, 900.0, 30.0


def said(*words: str, timeout_s: float = ASK_S) -> str:
    """What a program prints. Raises UpdateError if it fails."""
    done = tried(*words, timeout_s=timeout_s)
    if done.returncode:
        raise UpdateError(f"{' '.join(words[:3])}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout.strip()


def tried(*words: str, timeout_s: float = ASK_S) -> "subprocess.CompletedProcess[str]":
    """A program run to its end, whatever it says. Raises UpdateError if it is missing or does not end."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise UpdateError(f"{words[0]} is not on this machine; an update needs Debian's dpkg and systemd") from None
    except subprocess.TimeoutExpired:
        raise UpdateError(f"{' '.join(words[:3])}: no end within {timeout_s:.0f} s") from None


def architecture() -> str:
    return said("dpkg", "--print-architecture")


def installed() -> str | None:
    """Version of the installed package; None if there is none, as in a virtual environment."""
    done = tried("dpkg-query", "-W", "-f=${db:Status-Status} ${Version}", PACKAGE)
    status, _, version = done.stdout.strip().partition(" ")
    return version if done.returncode == 0 and status == "installed" else None


def running_units() -> list[str]:
    """The units of sites that run now."""
    listed = said("systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,reloading", UNITS)
    return [line.split()[0] for line in listed.splitlines() if line.split()]


def site_file(unit: str) -> Path:
    """The site file of a unit."""
    return SITE_FILES / f"{unit.removeprefix('tidegate@').removesuffix('.service')}.toml"


def site_name(unit: str) -> str:
    """What the site of a unit is called. Raises UpdateError for a file that does not say."""
    path = site_file(unit)
    try:
        return str(tomllib.loads(path.read_text("utf-8"))["site"]["name"])
    except (OSError, ValueError, KeyError, TypeError) as why:
        raise UpdateError(f"{path}: {why}") from None


def stop(units: Sequence[str]) -> None:
    """End sites; each at 0 W. Raises UpdateError for one that did not end so."""
    for unit in units:
        said("systemctl", "stop", unit, timeout_s=STOP_S)
        status = said("systemctl", "show", unit, "--property=ExecMainStatus", "--value")
        if status != "0":
            raise UpdateError(
                f"{unit}: ended with code {status}, not with the setpoint at 0 W; see journalctl -u {unit}"
            )


def start(units: Sequence[str]) -> str:
    """Start sites; what went wrong, "" = nothing."""
    failed = [unit for unit in units if tried("systemctl", "start", unit, timeout_s=STOP_S).returncode]
    return f"does not start: {', '.join(failed)}" if failed else ""


def why(site: str) -> dict[str, object] | None:
    """`tidegate why --json` of a site, by whichever release is installed now; None if there is no answer."""
    done = tried("/usr/bin/tidegate", "why", "--site", site, "--json")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
