"""Causes on the wires: lines and slaves that are silent or damaged, CAN buses and ids."""

from collections.abc import Iterator

import msgspec

from tidegate.hal.description import Device, SerialPort
from tidegate.runtime.api.answers import Buses, CanHealth, Slave, rise
from tidegate.runtime.findings.evidence import BMS_ROWS, METER_ROWS, PCS_ROWS, Finding, present
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.findings.text import age

SILENT_RUN = 3  # time-outs in a row before a slave is called silent
CAN_PERIODS = 5  # periods without a frame before an id is called silent
ERROR_SHARE = 0.01
SLOW_GAP_US = 2000  # silence beyond the line's rule that makes a poll round clearly longer

Row = tuple[Device, Slave]


def look(plant: Plant) -> Iterator[Finding]:
    """All that the buses' counters show."""
    told = plant.now.health.buses
    if told is None:
        return
    for port, stats in told.serial.items():
        rows = list(zip(port_devices(plant, port), stats.slaves, strict=False))
        if rows:
            yield from _silent(plant, port, rows, told.t_ns)
            yield from _damaged(plant, port, rows)
    for bus, can in told.can.items():
        yield from _can(plant, bus, can, told.t_ns)


# ---- serial lines ----


def port_devices(plant: Plant, port: str) -> list[Device]:
    """A device for each slave of a port, in the order of its counters; one in several roles as its most needed."""
    found = []
    for group in plant.description.slave_devices(port):
        first = next((one for one in group if one.role in ("grid-meter", "pcs")), group[0])
        found.append(msgspec.structs.replace(first, name=" + ".join(one.name for one in group)))
    return found


def silent_devices(plant: Plant) -> set[str]:
    """Names of serial devices that do not answer."""
    serial = (plant.now.health.buses or Buses()).serial
    return {
        device.name
        for port, stats in serial.items()
        for group, slave in zip(plant.description.slave_devices(port), stats.slaves, strict=False)
        if is_silent(slave)
        for device in group
    }


def is_silent(slave: Slave) -> bool:
    """Whether a slave does not answer at present."""
    return slave.silent_run >= SILENT_RUN or not slave.alive


def _silent(plant: Plant, port: str, rows: list[Row], told_ns: int) -> Iterator[Finding]:
    silent = [(device, slave) for device, slave in rows if is_silent(slave)]
    line = next((row for row in plant.description.ports if row.name == port), SerialPort(name=port, device="?"))
    setting = line.setting
    if len(silent) == len(rows) > 1:
        yield Finding(
            80,
            f"nobody answers on line {port}",
            f"{', '.join(device.name for device, _ in silent)} are all silent",
            f"the network, the gateway and its supply; set to {setting}"
            if line.over_tcp
            else f"the line itself: cable, A/B swapped, adapter, supply; set to {setting}",
            present(plant, *METER_ROWS, *PCS_ROWS),
        )
        return
    for device, slave in silent:
        last = f"last answer {age((told_ns - slave.t_ok_ns) / 1e6)} ago" if slave.t_ok_ns else "it never answered"
        others = [other.name for other, stats in rows if other is not device and not is_silent(stats)]
        if others:
            line_says = f"; {', '.join(others)} on the same line answers, so the line is good"
            remedy = f"supply, wiring and address of {device.name} (unit {device.unit_id})"
        else:
            line_says = ""
            remedy = f"supply and network of {device.name}, its unit id ({device.unit_id}), {setting}"
        if not others and not line.over_tcp:
            remedy = (
                f"supply and wiring of {device.name}, its address (unit {device.unit_id}), the line ({setting}), "
                "A/B swapped"
            )
        yield Finding(
            79 if device.role in ("grid-meter", "pcs") else 40,
            f"{device.name} ({device.role}) does not answer on line {port}",
            f"{slave.silent_run} time-outs in a row, {last}{line_says}",
            remedy,
            present(plant, *(PCS_ROWS if device.role == "pcs" else METER_ROWS)),
        )


def _damaged(plant: Plant, port: str, rows: list[Row]) -> Iterator[Finding]:
    before = plant.sample_ago(60.0)
    earlier = before.buses.serial.get(port) if before else None
    for at, (device, slave) in enumerate(rows):
        if is_silent(slave):
            continue
        old = earlier.slaves[at] if earlier is not None and at < len(earlier.slaves) else None
        bad = rise(slave, old, "damaged")
        answers = bad + rise(slave, old, "ok")
        if bad >= 3 and bad > ERROR_SHARE * answers:
            yield Finding(
                30,
                f"replies of {device.name} arrive damaged",
                f"{bad} of the last {answers} (line {port})",
                "termination, shield, common ground, another master or a wrong baud or parity",
            )
        if slave.gap_extra_us >= SLOW_GAP_US:
            yield Finding(
                15,
                f"{device.name} is asked more slowly than its line allows",
                f"{slave.gap_extra_us / 1e3:.1f} ms of silence before each request (line {port}): "
                "with less it did not always answer",
                "noise on the line, or a device that needs the time; a burst that is over keeps it so until the next "
                "start",
            )
        codes = rise(slave, old, "exceptions")
        if codes >= 3 and codes > ERROR_SHARE * answers:
            yield Finding(
                35,
                f"{device.name} refuses requests",
                f"{codes} Modbus exceptions of late",
                f"is it really a {device.map}? firmware and map must fit: `tidegate devices show {device.map}`",
            )


# ---- CAN ----


def _can(plant: Plant, bus: str, stats: CanHealth, told_ns: int) -> Iterator[Finding]:
    rate = next((row.bitrate for row in plant.description.can if row.name == bus), None)
    faults = present(plant, *BMS_ROWS)
    if stats.state in ("passive", "bus-off", "down"):
        yield Finding(
            75,
            f"CAN bus {bus} is {stats.state}",
            f"error counters {stats.tec} sent, {stats.rec} received; {stats.bus_off} times bus-off",
            f"termination (120 ohm at both ends), CAN-H and CAN-L, bit rate {rate}",
            faults,
        )
    silent = {
        number: frame.t_last_ns
        for number, frame in stats.ids.items()
        if not frame.t_last_ns or told_ns - frame.t_last_ns > CAN_PERIODS * max(frame.period_ns, 20_000_000)
    }
    users = ", ".join(device.name for device in plant.devices if device.bus == bus)
    if silent and len(silent) == len(stats.ids):
        newest = max(silent.values())
        when = f"last frame {age((told_ns - newest) / 1e6)} ago" if newest else "not one frame since start"
        yield Finding(
            78,
            f"{users} is silent on CAN bus {bus}",
            f"{when}; unknown ids: {stats.unknown} frames",
            f"supply of the BMS, CAN-H and CAN-L, bit rate {rate}",
            faults,
        )
    elif silent:
        names = ", ".join(
            f"0x{number} ({age((told_ns - last) / 1e6) + ' ago' if last else 'never'})"
            for number, last in silent.items()
        )
        yield Finding(
            70,
            f"{users} leaves out frames on CAN bus {bus}",
            f"missing: {names}; {len(stats.ids) - len(silent)} other ids come as they should",
            "firmware or settings of the BMS: the protocol must be the one of its map",
            faults,
        )
