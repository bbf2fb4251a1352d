"""`tidegate check SITE`: is this a site that may start? Says everything that is wrong, or what it would do."""

import sys
from collections.abc import Callable
from typing import Any

from tidegate.config.compile import compile_site
from tidegate.config.site import SiteError, load_site
from tidegate.ext.abi import program


def summary(blob: bytes) -> list[str]:
    """A few lines about a compiled site, for people."""
    said = program.describe(blob)
    lines = [
        f"site {said['site']['name']}: {len(said['devices'])} devices, {len(said['units'])} storage units, "
        f"{len(said['points'])} points, a cycle every {said['period_ns'] / 1e6:g} ms",
    ]
    for plan in said["plan"]:
        fast = f", fast points every {plan['round_us'] / 1e3:.3g} ms" if plan["round_us"] else ""
        lines.append(f"port {plan['port']}: timed polls take {plan['share']:.0%} of the line{fast}")
        if plan["zero_us"]:
            lines.append(
                f"port {plan['port']}: 0 W is on the wire within {plan['zero_us'] / 1e3:.3g} ms of an alarm, within "
                f"{plan['zero_timeout_us'] / 1e3:.3g} ms when a reply is missing just then"
            )
    if said["silence_us"]:
        silent = ", ".join(f"{name} {us / 1e3:.4g} ms" for name, us in said["silence_us"].items())
        lines.append(f"setpoint 0 after silence of: {silent}")
    for device in said["devices"]:
        lines += [f"doubt about {device['name']} ({device['map']}): {doubt}" for doubt in device["doubts"]]
    lines.append(f"program {said['sha256']}")
    return lines


def check(path: str, out: Callable[[str], Any] = print, err: Callable[[str], Any] | None = None) -> int:
    """Check a site file; returns the exit code: 0, or the class of what is wrong (see config.site)."""
    err = err or (lambda line: print(line, file=sys.stderr))
    try:
        blob = compile_site(load_site(path))
    except SiteError as error:
        for problem in error.problems:
            err(f"{path}: {problem}")
        count = len(error.problems)
        err(f"{path}: {count} problem{'s' if count > 1 else ''}; nothing was started")
        return error.exit_code
    for line in summary(blob):
        out(line)
    out(f"{path}: good")
    return 0
