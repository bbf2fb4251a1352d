"""What the doctor sees of a site's buses: adapters and interfaces, never the devices behind them."""

import importlib.util
import json
import os
import shutil
import socket
import stat
import subprocess
import termios
import time
from typing import Any

from tidegate.config.gpio import lines_of
from tidegate.config.site import Can, Serial, Site, Tcp
from tidegate.hal import canbus, gpio_lines, serial_line
from tidegate.hal.gpio_frames import SIMULATED
from tidegate.runtime.commissioning.machine import COSTS, FIX, OK, UNKNOWN, Finding
from tidegate.runtime.tools.open_bus import holders

TIMER_MS_MAX = 1
CONNECT_S = 2.0


def look(site: Site) -> list[Finding]:
    """One finding or more for each bus of the site."""
    found: list[Finding] = []
    for port in site.serial:
        found += serial(port)
    for lan in site.tcp:
        found += tcp(lan)
    for bus in site.can:
        found += can(bus)
    return found + gpio(site)


def tcp(bus: Tcp) -> list[Finding]:
    """A TCP bus: does the address take a connection. Nothing is sent on it."""
    topic = f"tcp {bus.name}"
    if bus.host == "sim":
        return [Finding(topic, OK, "simulated")]
    where = f"{bus.host} port {bus.port}"
    begin = time.monotonic()
    try:
        socket.create_connection((bus.host, bus.port), CONNECT_S).close()
    except TimeoutError:
        said = f"{where}: no answer within {CONNECT_S:g} s"
        return [Finding(topic, FIX, said, "is the device on, in this network, and no firewall between? ping shows it")]
    except ConnectionRefusedError:
        said = f"{where} refuses: the device is there, nobody listens at this port"
        return [
            Finding(topic, FIX, said, "switch Modbus TCP on in the device, or correct port; some bear one master only")
        ]
    except OSError as error:
        return [Finding(topic, FIX, f"{where}: {error.strerror or error}", "ip route get ADDRESS shows the way there")]
    ms = (time.monotonic() - begin) * 1e3
    return [Finding(topic, OK, f"{where} takes a connection", "", {"connect_ms": round(ms, 3)})]


def serial(port: Serial, sys_root: str = "/sys") -> list[Finding]:
    """A serial port: is it there, is it a tty, may we, what does its adapter do to timing."""
    topic = f"serial {port.name}"
    if port.device == "sim":
        return [Finding(topic, OK, "simulated")]
    try:
        seen = os.stat(port.device)
    except OSError as error:
        said = f"{port.device}: {error.strerror}"
        return [Finding(topic, FIX, said, "plug the adapter in, or give the name that `ls -l /dev/serial/by-id` shows")]
    if not stat.S_ISCHR(seen.st_mode):
        return [Finding(topic, FIX, f"{port.device} is not a serial port", f"correct device of [[serial]] {port.name}")]
    if not os.access(port.device, os.R_OK | os.W_OK):
        said = f"{port.device}: this user may not open it"
        return [Finding(topic, FIX, said, "usermod -aG dialout tidegate, or install the package's udev rules")]
    try:
        fd = os.open(port.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return [Finding(topic, FIX, f"{port.device}: {error.strerror}", "see dmesg about the adapter")]
    try:
        termios.tcgetattr(fd)
        tuned = serial_line.look(fd, port.device, sys_root)
    except termios.error:
        return [Finding(topic, FIX, f"{port.device} is not a serial port", f"correct device of [[serial]] {port.name}")]
    finally:
        os.close(fd)
    found = [_latency(topic, port, tuned)]
    who = [one for one in holders(port.device) if not one.startswith(("python", "tidegate"))]
    if who:
        said = f"{port.device} is open in {', '.join(who)}: two masters spoil each other"
        found.append(Finding(topic, FIX, said, f"stop it; fuser -v {port.device} shows it"))
    return found


def _latency(topic: str, port: Serial, tuned: serial_line.Tuned) -> Finding:
    timer, values = tuned.latency_timer_ms, {"low_latency": tuned.low_latency, "timer_ms": tuned.latency_timer_ms}
    if timer is not None and timer > TIMER_MS_MAX:
        name = os.path.basename(os.path.realpath(port.device))
        return Finding(
            topic, COSTS, f"{port.device}: the FTDI adapter holds replies back for up to {timer} ms",
            f"echo 1 > /sys/bus/usb-serial/devices/{name}/latency_timer, or install the package's udev rules", values,
        )  # fmt: skip
    if tuned.low_latency is False:
        said = f"{port.device}: low latency is off now; the core asks for it when it opens the port"
        return Finding(topic, OK, said, "", values)
    return Finding(topic, OK, f"{port.device}: nothing seen that holds bytes back", "", values)


def gpio(site: Site) -> list[Finding]:
    """GPIO lines: is each there, and free. While the controller runs they are its own, which is good as well."""
    lines = lines_of(site.input, site.output)
    if not lines:
        return []
    if {one.chip for one in lines} == {SIMULATED}:
        return [Finding("gpio", OK, "simulated")]
    if importlib.util.find_spec("gpiod") is None:
        return [Finding("gpio", FIX, "gpiod is not installed", "pip install 'tidegate[gpio]'")]
    found = []
    for path in dict.fromkeys(one.chip for one in lines if one.chip != SIMULATED):
        own = [one for one in lines if one.chip == path]
        problem = gpio_lines.look(path, own)
        if problem and "taken by tidegate;" not in problem:
            said, _, remedy = problem.partition("; ")
            found.append(Finding("gpio", FIX, said, remedy or "check chip and line of [[input]] and [[output]]"))
        else:
            found.append(Finding("gpio", OK, f"{path}: {len(own)} lines, each there and free for us"))
    return found


def can(bus: Can) -> list[Finding]:
    """A CAN bus: is it there and up, at the right bit rate, and how does its controller feel."""
    topic = f"can {bus.name}"
    if bus.interface == "sim":
        return [Finding(topic, OK, "simulated")]
    if canbus.is_bridged(bus.interface):
        path = bus.interface.partition(":")[2].partition("?")[0]
        if path.startswith("/") and not os.path.exists(path):
            return [Finding(topic, FIX, f"{path}: no such device", "plug the adapter in, or correct interface")]
        if path.startswith("/") and not os.access(path, os.R_OK | os.W_OK):
            return [Finding(topic, FIX, f"{path}: this user may not open it", "usermod -aG dialout tidegate")]
        said = f"{bus.interface} goes through a bridge process: error counters and kernel stamps are not seen"
        return [Finding(topic, COSTS, said, "an adapter with a SocketCAN driver, if milliseconds matter")]
    ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if ip is None:
        return [Finding(topic, UNKNOWN, "the program ip is not installed", "apt install iproute2")]
    done = subprocess.run(
        [ip, "-details", "-statistics", "-json", "link", "show", bus.interface], capture_output=True, text=True
    )
    if done.returncode:
        said = f"{bus.interface}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'is not there'}"
        return [Finding(topic, FIX, said, "ip link (is its driver or overlay loaded?)")]
    try:
        return can_words(bus, json.loads(done.stdout)[0])
    except (ValueError, LookupError, TypeError) as error:
        return [Finding(topic, UNKNOWN, f"{bus.interface}: what ip says was not understood: {error}")]


def can_words(bus: Can, said: dict[str, Any]) -> list[Finding]:
    """Findings for what `ip -details -statistics -json` says of an interface."""
    topic = f"can {bus.name}"
    info = said.get("linkinfo") or {}
    data = info.get("info_data") or {}
    up = f"ip link set {bus.interface} up type can bitrate {bus.bitrate}"
    if "UP" not in said.get("flags", []):
        return [Finding(topic, FIX, f"{bus.interface} is down", up)]
    if info.get("info_kind") == "vcan":
        return [Finding(topic, OK, f"{bus.interface} is virtual and up")]
    rate = (data.get("bittiming") or {}).get("bitrate")
    if rate is not None and rate != bus.bitrate:
        down = f"ip link set {bus.interface} down; {up}"
        return [Finding(topic, FIX, f"{bus.interface} runs at {rate} bit/s, the site file says {bus.bitrate}", down)]
    state = data.get("state", "")
    errors = data.get("berr_counter") or {}
    counts = (info.get("info_xstats") or {}) | {f"errors_{key}": value for key, value in errors.items()}
    tx, rx = errors.get("tx", 0), errors.get("rx", 0)
    feels = f"{state.lower() or 'up'}, error counters tx {tx}, rx {rx}"
    shown = f"{bus.interface}: {rate or bus.bitrate} bit/s, {feels}"
    if state in ("BUS-OFF", "ERROR-PASSIVE"):
        return [Finding(topic, FIX, shown, "check termination (60 ohm H to L), bit rate, a second node", counts)]
    if state == "ERROR-WARNING" or max(tx, rx) > 0:
        return [Finding(topic, COSTS, shown, "check termination and shield; candump -e shows the errors", counts)]
    return [Finding(topic, OK, shown, "", counts)]
