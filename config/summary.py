"""`tidegate check SITE`: is this a site that may start? Says everything that is wrong, or what it would do."""

import sys
from collections.abc import Callable

from tidegate.config.compile import compile_site
from tidegate.config.site import SiteError, load_site
from tidegate.ext.abi import program
from tidegate.hal.description import described


def summary(blob: bytes) -> list[str]:
    """A few lines about a compiled site, for people."""
    site = described(program.describe(blob))
    lines = [
        f"site {site.site.name}: {len(site.devices)} devices, {len(site.units)} storage units, "
        f"{len(site.points)} points, a cycle every {site.period_ns / 1e6:g} ms",
    ]
    for plan in site.plan:
        fast = f", fast points every {plan.round_us / 1e3:.3g} ms" if plan.round_us else ""
        lines.append(f"port {plan.port}: timed polls take {plan.share:.0%} of the line{fast}")
        if plan.zero_us:
            lines.append(
                f"port {plan.port}: 0 W is on the wire within {plan.zero_us / 1e3:.3g} ms of an alarm, within "
                f"{plan.zero_timeout_us / 1e3:.3g} ms when a reply is missing just then"
            )
    if site.silence_us:
        silent = ", ".join(f"{name} {us / 1e3:.4g} ms" for name, us in site.silence_us.items())
        lines.append(f"setpoint 0 after silence of: {silent}")
    for device in site.devices:
        lines += [f"doubt about {device.name} ({device.map}): {text}" for text in device.doubts]
    lines.append(f"program {site.sha256}")
    return lines


def check(path: str, out: Callable[[str], object] = print, err: Callable[[str], object] | None = None) -> int:
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
