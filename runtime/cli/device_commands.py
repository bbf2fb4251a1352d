"""`tidegate devices | scan | read | sniff`: device maps, and tools for a bus that the controller is not on."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from tidegate.config.compile import load_maps
from tidegate.config.site import Device, Site, SiteError, load_site
from tidegate.hal import maps
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.tools.open_bus import RegisterReader, ToolError, open_can


def _fail(message: str, code: int = 1) -> None:
    click.echo(f"tidegate: {message}", err=True)
    sys.exit(code)


def _site(path: Path) -> tuple[Site, dict[str, DeviceMap]]:
    try:
        site = load_site(path)
    except SiteError as error:
        for problem in error.problems:
            click.echo(f"{path}: {problem}", err=True)
        sys.exit(error.exit_code)
    problems: list[str] = []
    found = load_maps(site, problems)
    if problems:
        _fail("\n".join(problems), 78)
    return site, found


def _map(name: str, options: tuple[str, ...]) -> DeviceMap:
    chosen: dict[str, str] = {}
    for word in options:
        key, equals, value = word.partition("=")
        if not equals:
            _fail(f"--option {word!r}: expected KEY=VALUE", 2)
        chosen[key] = value
    try:
        return maps.load_map(name, chosen or None)
    except maps.MapError as error:
        _fail("\n".join(error.problems), 65)
        raise  # never reached


# ------------------------------------------------------------------------------------------------------- devices


@click.command()
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice(["bms", "pcs", "meter"]), help="Only this kind.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def devices(name: str | None, kind: str | None, as_json: bool) -> None:
    """List the shipped device maps, or describe one (NAME, or a .toml file)."""
    if name:
        found = _map(name, ())
        if as_json:
            click.echo(json.dumps(found.model_dump(mode="json", by_alias=True), indent=1))
            return
        _describe(found)
        return
    rows = [maps.shipped(one) for one in maps.map_names()]
    rows = [row for row in rows if kind in (None, row.map.kind)]
    if as_json:
        listed = [{"name": r.name, "kind": r.map.kind, "protocol": r.map.protocol, "title": r.map.title} for r in rows]
        click.echo(json.dumps(listed, indent=1))
        return
    for row in rows:
        click.echo(f"{row.name:22} {row.map.kind:6} {row.map.protocol:8} {row.map.title}")


def _describe(found: DeviceMap) -> None:
    click.echo(f"{found.name}: {found.map.title}\nkind {found.map.kind}, speaks {found.map.protocol}")
    click.echo(f"source: {found.map.source}")
    for doubt in found.map.doubts:
        click.echo(f"doubt: {doubt}")
    for key, option in found.option.items():
        choices = ", ".join(choice.value for choice in option.choice)
        click.echo(f"option {key} = {choices} (default {option.default}): {option.meaning}")
    for key, number in found.number.items():
        default = "must be given" if number.default is None else f"default {number.default:g}"
        click.echo(f"option {key} in {number.unit} ({default}): {number.meaning}")
    for p in found.point:
        if not p.hidden:
            where = f"{p.function}:{p.address}" if found.map.protocol == "modbus" else f"{p.model}.{p.field}"
            click.echo(f"  {p.name:24} {p.unit:6} {where:16} {p.type:7} {p.poll:5} {p.register_name}")
    for frame in found.frame:
        click.echo(f"  frame 0x{frame.id:X}{' (29 bit)' if frame.extended else ''} every {frame.period_ms:g} ms")
        for s in frame.signal:
            click.echo(f"    {s.name:22} {s.unit:6} bits {s.start}+{s.length} {s.byte_order:7} {s.register_name}")
    for c in found.command:
        click.echo(f"  write {c.name:18} {c.kind:10} {c.function}:{c.address} {c.type}")
    for tx in found.transmit:
        click.echo(f"  send 0x{tx.id:X} {tx.name} every {tx.period_ms:g} ms ({tx.kind})")


# ---------------------------------------------------------------------------------------------------------- scan


def _numbers(text: str) -> list[int]:
    """Numbers out of "1-20,30"; raises click.BadParameter."""
    found: list[int] = []
    try:
        for part in text.split(","):
            low, _, high = part.partition("-")
            found += range(int(low), int(high or low) + 1)
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected numbers like 1-20,30") from None
    if not found or not all(1 <= one <= 247 for one in found):
        raise click.BadParameter(f"{text!r}: unit ids are 1 to 247")
    return found


@click.command()
@click.option("--serial", "device", help="A serial port, such as /dev/ttyUSB0.")
@click.option("--can", "bus", help="A CAN bus: can0, or INTERFACE:CHANNEL as python-can knows it.")
@click.option("--baud", default="9600", show_default=True, help="Baud rates to try, separated by commas.")
@click.option("--parity", default="N", show_default=True, help="Parities to try: any of N, E, O.")
@click.option("--ids", default="1-247", show_default=True, help="Unit ids to try, such as 1-20,30.")
@click.option("--timeout-ms", default=100.0, show_default=True, help="Wait so long for an answer.")
@click.option("--seconds", default=5.0, show_default=True, help="Listen so long on CAN.")
@click.option("--no-identify", is_flag=True, help="Do not try which meter map fits.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def scan(
    device: str | None, bus: str | None, baud: str, parity: str, ids: str, timeout_ms: float, seconds: float,
    no_identify: bool, as_json: bool,
) -> None:  # fmt: skip
    """Look for devices on a bus: unit ids, SunSpec chains, the map that fits, the BMS dialect. Only reads."""
    if (device is None) == (bus is None):
        _fail("give one of --serial and --can", 2)
    try:
        if device is not None:
            _scan_serial(device, baud, parity, _numbers(ids), timeout_ms, not no_identify, as_json)
        else:
            assert bus is not None
            _scan_can(bus, seconds, as_json)
    except ToolError as error:
        _fail(str(error), error.exit_code)


def _scan_serial(
    device: str, baud: str, parity: str, ids: list[int], timeout_ms: float, identify: bool, as_json: bool
) -> None:
    from tidegate.runtime.tools.scan import scan_serial

    rates = [int(one) for one in baud.split(",") if one.strip().isdigit()]
    if not rates:
        _fail(f"--baud {baud!r}: expected numbers separated by commas", 2)
    report: list[dict[str, Any]] = []
    for rate in rates:
        for one in parity.upper():
            if one not in "NEO":
                continue
            with (
                RegisterReader(device, rate, one, timeout_s=timeout_ms / 1e3) as reader,
                click.progressbar(length=len(ids), label=f"{device} {rate} 8{one}1", file=sys.stderr) as bar,
            ):
                found = scan_serial(reader, ids, identify, lambda _, bar=bar: bar.update(1))  # type: ignore[misc]
            for row in found:
                report.append({"baud": rate, "parity": one, **row.__dict__})
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    for entry in report:
        who = " ".join(text for text in entry["identity"].values() if text)
        click.echo(f"unit {entry['unit_id']} at {entry['baud']} 8{entry['parity']}1 {who}".rstrip())
        if entry["chain"]:
            models = ", ".join(f"{number} = {at}" for number, at, _ in entry["chain"])
            click.echo(f"  sunspec_base = {entry['base']}\n  sunspec_models = {{ {models} }}")
        for name, good, tried in entry["fits"]:
            click.echo(f"  looks like {name} ({good} of {tried} readings believable)")
    if not report:
        click.echo(f"nothing answered on {device}; check wiring (A and B swapped?), baud rate, parity", err=True)
        sys.exit(1)


def _scan_can(where: str, seconds: float, as_json: bool) -> None:
    from tidegate.runtime.tools.scan import fitting_bms, listen

    with open_can(where) as bus, click.progressbar(length=int(seconds * 10), label=where, file=sys.stderr) as bar:
        heard = listen(bus, seconds, lambda gone: bar.update(max(0, int(gone * 10) - bar.pos)))
    found = fitting_bms(heard)
    if as_json:
        click.echo(json.dumps([one.__dict__ for one in found], indent=1))
        return
    click.echo(f"{len(heard)} frames of {len({m.arbitration_id for m in heard})} ids heard")
    for one in found[:5]:
        options = "".join(f", option {key} = {value!r}" for key, value in one.options.items())
        click.echo(f"fits {one.map} ({one.share:.0%} of its frames{options})")
        click.echo("  " + ", ".join(f"{key} {value:g}" for key, value in list(one.values.items())[:8]))
    if not found:
        click.echo(f"no known BMS in {seconds:g} s; check bit rate and termination, or wake it by its button", err=True)
        sys.exit(1)


# ---------------------------------------------------------------------------------------------------------- read


@click.command()
@click.argument("device")
@click.argument("point", required=False, default="")
@click.option("--site", type=click.Path(path_type=Path), help="Site file that has the device.")
@click.option("--serial", "port", help="Without a site: the serial port; DEVICE is then the name of a map.")
@click.option("--can", "bus", help="Without a site: the CAN bus.")
@click.option("--unit", "unit_id", type=click.IntRange(1, 247), default=1, show_default=True)
@click.option("--baud", type=int, help="Without a site: default is the map's.")
@click.option("--parity", type=click.Choice(["N", "E", "O"]), help="Without a site: default is the map's.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Dialect option of the map.")
@click.option("--seconds", default=3.0, show_default=True, help="Listen so long on CAN.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def read(
    device: str, point: str, site: Path | None, port: str | None, bus: str | None, unit_id: int, baud: int | None,
    parity: str | None, options: tuple[str, ...], seconds: float, as_json: bool,
) -> None:  # fmt: skip
    """Read DEVICE once, all points or one POINT. The controller must not be on the bus."""
    from tidegate.runtime.tools.read_once import read_can, read_registers

    try:
        if site is not None:
            found, port, bus, unit_id, baud, parity, offset = _from_site(site, device)
        else:
            if (port is None) == (bus is None):
                _fail("give --site, or one of --serial and --can", 2)
            found, offset = _map(device, options), 0
        if port is not None:
            with RegisterReader(port, baud or found.modbus.baud, parity or found.modbus.parity) as reader:
                readings = read_registers(reader, found, unit_id, point)
        else:
            assert bus is not None
            with open_can(bus, found.can.bitrate) as opened:
                readings = read_can(opened, found, seconds, offset, point)
    except ToolError as error:
        _fail(str(error), error.exit_code)
        return
    if as_json:
        click.echo(json.dumps([one.__dict__ for one in readings], indent=1))
        return
    for one in readings:
        shown = "invalid" if one.value is None else f"{one.value:.10g}"
        click.echo(f"{one.name:24} {shown:>14} {one.unit:6} {one.raw:24} {one.register}")


def _from_site(path: Path, name: str) -> tuple[DeviceMap, str | None, str | None, int, int | None, str | None, int]:
    site, found = _site(path)
    device = next((one for one in site.device if one.name == name), None)
    if device is None:
        _fail(f"{path}: no device is named {name!r}; it has: {', '.join(one.name for one in site.device)}", 2)
    assert isinstance(device, Device)
    for serial in site.serial:
        if serial.name == device.bus:
            if serial.device == "sim":
                _fail(f"{path}: {name} is simulated; it exists only while `tidegate run` does: use `tidegate get`", 2)
            return found[name], serial.device, None, device.unit_id or 1, serial.baud, serial.parity, 0
    can = next(one for one in site.can if one.name == device.bus)
    if can.interface == "sim":
        _fail(f"{path}: {name} is simulated; it exists only while `tidegate run` does: use `tidegate get`", 2)
    return found[name], None, can.interface, 0, None, None, device.can_id_offset


# --------------------------------------------------------------------------------------------------------- sniff


@click.command()
@click.option("--serial", "port", help="A serial port.")
@click.option("--can", "bus", help="A CAN bus: can0, or INTERFACE:CHANNEL.")
@click.option("--baud", default=9600, show_default=True)
@click.option("--parity", type=click.Choice(["N", "E", "O"]), default="N", show_default=True)
@click.option("--site", type=click.Path(path_type=Path), help="Decode with the devices of this site.")
@click.option("--map", "map_words", multiple=True, metavar="[UNIT=]MAP", help="Decode with this map (serial: 1=NAME).")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to FILE.pcap or FILE.log (candump)."
)
@click.option("--seconds", type=float, help="End after so long; default: with Ctrl-C.")
@click.option("--quiet", is_flag=True, help="Print nothing but the summary.")
def sniff(
    port: str | None, bus: str | None, baud: int, parity: str, site: Path | None, map_words: tuple[str, ...],
    out: Path | None, seconds: float | None, quiet: bool,
) -> None:  # fmt: skip
    """Listen to a bus and show what passes, decoded. Sends nothing."""
    if (port is None) == (bus is None):
        _fail("give one of --serial and --can", 2)
    if out is not None and out.suffix not in ((".pcap",) if port else (".pcap", ".log")):
        _fail(f"{out}: expected a name ending in {'.pcap' if port else '.pcap or .log'}", 2)
    end = time.monotonic() + seconds if seconds else None
    try:
        if port is not None:
            _sniff_serial(port, baud, parity, _serial_devices(port, site, map_words), out, end, quiet)
        else:
            assert bus is not None
            _sniff_can(bus, _can_devices(bus, site, map_words), out, end, quiet)
    except ToolError as error:
        _fail(str(error), error.exit_code)


def _serial_devices(port: str, site: Path | None, words: tuple[str, ...]) -> dict[int, tuple[str, DeviceMap]]:
    devices: dict[int, tuple[str, DeviceMap]] = {}
    if site is not None:
        loaded, found = _site(site)
        names = {one.name for one in loaded.serial if one.device == port}
        devices = {d.unit_id: (d.name, found[d.name]) for d in loaded.device if d.bus in names and d.unit_id}
    for word in words:
        unit, equals, name = word.rpartition("=")
        if not equals or not unit.isdigit():
            _fail(f"--map {word!r}: expected UNIT=MAP on a serial port", 2)
        devices[int(unit)] = (name, _map(name, ()))
    return devices


def _can_devices(bus: str, site: Path | None, words: tuple[str, ...]) -> list[tuple[str, int, DeviceMap]]:
    devices: list[tuple[str, int, DeviceMap]] = []
    if site is not None:
        loaded, found = _site(site)
        names = {one.name for one in loaded.can if one.interface == bus}
        devices = [(d.name, d.can_id_offset, found[d.name]) for d in loaded.device if d.bus in names]
    return devices + [(word, 0, _map(word, ())) for word in words]


def _shown(values: dict[str, float | None]) -> str:
    return ", ".join(f"{key} {'invalid' if value is None else f'{value:g}'}" for key, value in values.items())


def _sniff_serial(
    port: str, baud: int, parity: str, devices: dict[int, tuple[str, DeviceMap]], out: Path | None, end: float | None,
    quiet: bool,
) -> None:  # fmt: skip
    from tidegate.runtime.tools.open_bus import claim
    from tidegate.runtime.tools.sniff import LINKTYPE_USER0, PcapWriter, RtuSplitter

    splitter = RtuSplitter(devices)
    frames = 0
    tty = claim(port, baud, parity, 1)
    tty.timeout = 0.05  # longer than any gap inside a frame, so an empty read is silence
    handle = out.open("wb") if out else None
    writer = PcapWriter(handle, LINKTYPE_USER0) if handle else None
    try:
        while end is None or time.monotonic() < end:
            data = tty.read(max(1, tty.in_waiting))
            t_s = time.time()
            for frame in splitter.feed(data, t_s):
                frames += 1
                if writer:
                    writer.write(frame.t_s, frame.data)
                if not quiet:
                    who = frame.device or f"unit {frame.unit_id}"
                    click.echo(f"{frame.t_s:.3f} {frame.kind:9} {who:12} {frame.data.hex(' ').upper()}")
                    if frame.values:
                        click.echo(f"              {_shown(frame.values)}")
    except KeyboardInterrupt:
        pass
    finally:
        tty.close()
        if handle:
            handle.close()
    click.echo(f"{frames} frames, {splitter.foreign} bytes that belong to none", err=True)


def _sniff_can(
    where: str, devices: list[tuple[str, int, DeviceMap]], out: Path | None, end: float | None, quiet: bool
) -> None:
    from tidegate.runtime.tools.sniff import (
        LINKTYPE_CAN_SOCKETCAN,
        PcapWriter,
        can_packet,
        decode_message,
        write_candump,
    )

    frames = known = 0
    binary = out.open("wb") if out and out.suffix == ".pcap" else None
    text = out.open("w", encoding="ascii") if out and out.suffix == ".log" else None
    writer = PcapWriter(binary, LINKTYPE_CAN_SOCKETCAN) if binary else None
    try:
        with open_can(where) as bus:
            while end is None or time.monotonic() < end:
                message = bus.recv(0.1)
                if message is None:
                    continue
                frames += 1
                name, values = decode_message(message, devices)
                known += bool(name)
                if writer:
                    writer.write(message.timestamp, can_packet(message))
                if text:
                    write_candump(text, message, where.partition(":")[0])
                if not quiet:
                    ident = f"{message.arbitration_id:X}"
                    click.echo(f"{message.timestamp:.3f} {ident:>8} {bytes(message.data).hex(' ').upper():24} {name}")
                    if values:
                        click.echo(f"              {_shown(values)}")
    except KeyboardInterrupt:
        pass
    finally:
        for handle in (binary, text):
            if handle:
                handle.close()
    click.echo(f"{frames} frames, {known} of known devices", err=True)
