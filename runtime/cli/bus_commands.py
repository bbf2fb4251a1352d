"""`tidegate scan | read | sniff`: tools for a bus that the controller is not on."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from tidegate.config.quantities import QuantityError, unit_ids
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.api.messages import Message
from tidegate.runtime.cli.common import ASSIGNMENT, fail
from tidegate.runtime.cli.device_commands import map_named, site_and_maps
from tidegate.runtime.cli.scan_text import pack_text, scan_text
from tidegate.runtime.tools.open_bus import GARBLE, SILENCE, RegisterReader, TcpReader, ToolError, open_can

if TYPE_CHECKING:
    from tidegate.runtime.tools.read_once import Reading

PROTOCOLS = click.Choice(["modbus", "pylontech"])
EXIT_ARGUMENTS = 2  # as click ends for an argument that it cannot take

# ---- scan ----


@click.command()
@click.option("--serial", "device", help="A serial port, such as /dev/ttyUSB0.")
@click.option("--tcp", "lan", help="Modbus TCP: ADDRESS or ADDRESS:PORT.")
@click.option("--can", "bus", help="A CAN bus: can0, or INTERFACE:CHANNEL as python-can knows it.")
@click.option("--protocol", type=PROTOCOLS, default="modbus", show_default=True, help="What the line speaks.")
@click.option("--baud", help="Baud rates to try, separated by commas; default 9600, of pylontech 115200,9600.")
@click.option("--parity", default="N", show_default=True, help="Parities to try: any of N, E, O.")
@click.option("--ids", help="Unit ids to try, such as 1-20,30; default 1-247, of pylontech 2-16; over TCP also 0, 255.")
@click.option("--timeout-ms", type=float, help="Wait so long for an answer; default 100, of pylontech 600.")
@click.option("--seconds", default=5.0, show_default=True, help="Listen so long on CAN.")
@click.option("--no-identify", is_flag=True, help="Do not try which meter map fits.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def scan(
    device: str | None, lan: str | None, bus: str | None, protocol: str, baud: str | None, parity: str,
    ids: str | None, timeout_ms: float | None, seconds: float, no_identify: bool, as_json: bool,
) -> None:  # fmt: skip
    """Look for devices on a bus: unit ids, SunSpec chains, packs, the map that fits, the BMS dialect. Only reads."""
    if [device, lan, bus].count(None) != 2:
        fail("give one of --serial, --tcp and --can", EXIT_ARGUMENTS)
    packs = protocol == "pylontech"
    if packs and bus is not None:
        fail(
            "--protocol pylontech is of a serial line or a gateway; on CAN such packs are found by --can",
            EXIT_ARGUMENTS,
        )
    baud = ("115200,9600" if packs else "9600") if baud is None else baud
    timeout_ms = (600.0 if packs else 100.0) if timeout_ms is None else timeout_ms
    ids = ("2-16" if packs else "1-247") if ids is None else ids
    wanted = _unit_ids(ids, 0 if lan and not packs else 1, 255 if lan else 247)
    try:
        if packs:
            _scan_packs(device, lan, baud, parity, wanted, timeout_ms, as_json)
        elif lan is not None:
            _scan_tcp(lan, wanted, timeout_ms, not no_identify, as_json)
        elif device is not None:
            _scan_serial(device, baud, parity, wanted, timeout_ms, not no_identify, as_json)
        else:
            assert bus is not None
            _scan_can(bus, seconds, as_json)
    except ToolError as error:
        fail(error, error.exit_code)


def _unit_ids(text: str, least: int, most: int) -> list[int]:
    try:
        return unit_ids(text, least, most)
    except QuantityError as error:
        fail(f"--ids {error}", EXIT_ARGUMENTS)


def _rates(baud: str) -> list[int]:
    rates = [int(one) for one in baud.split(",") if one.strip().isdigit()]
    if not rates:
        fail(f"--baud {baud!r}: expected numbers separated by commas", EXIT_ARGUMENTS)
    return rates


def _scan_packs(
    device: str | None, lan: str | None, baud: str, parity: str, ids: list[int], timeout_ms: float, as_json: bool
) -> None:
    from tidegate.runtime.tools.pylon_bus import FoundPack, PylonReader, PylonTcpReader, scan_packs

    where = str(lan or device)
    report: list[tuple[int, str, FoundPack]] = []
    heard = False
    settings = [(0, "N")] if lan else [(rate, one) for rate in _rates(baud) for one in parity.upper() if one in "NEO"]
    for rate, one in settings:
        reader = (
            PylonTcpReader(where, timeout_ms / 1e3)
            if lan
            else PylonReader(where, rate, one, timeout_s=timeout_ms / 1e3)
        )
        with reader, click.progressbar(length=len(ids), label=f"{where} packs", file=sys.stderr) as bar:
            found = scan_packs(reader, ids, lambda _, bar=bar: bar.update(1))  # type: ignore[misc]
        report += [(rate, one, pack) for pack in found]
        heard = heard or reader.heard
    if as_json:
        rows = [{"baud": rate or None, "parity": one, **pack.__dict__} for rate, one, pack in report]
        click.echo(json.dumps(rows, indent=1))
        return
    for line in pack_text(report, where, lan is not None):
        click.echo(line)
    if not report:
        check = f"{SILENCE}, baud rate, address switches"
        if heard:
            check = "baud rate and parity (characters come, and no answer), or packs of another protocol"
        click.echo(f"no pack answered on {where}; check {check}", err=True)
        sys.exit(1)


def _scan_serial(
    device: str, baud: str, parity: str, ids: list[int], timeout_ms: float, identify: bool, as_json: bool
) -> None:
    from tidegate.runtime.tools.scan import scan_serial

    report: list[Message] = []
    heard = False
    for rate in _rates(baud):
        for one in parity.upper():
            if one not in "NEO":
                continue
            with (
                RegisterReader(device, rate, one, timeout_s=timeout_ms / 1e3) as reader,
                click.progressbar(length=len(ids), label=f"{device} {rate} 8{one}1", file=sys.stderr) as bar,
            ):
                found = scan_serial(reader, ids, identify, lambda _, bar=bar: bar.update(1))  # type: ignore[misc]
            for row in found:
                report.append({"baud": rate, "parity": one, "lead_in_bytes": reader.lead_in, **row.__dict__})
            heard = heard or reader.heard
    _print_units(report, device, GARBLE if heard else f"{SILENCE}, baud rate, parity", as_json)


def _scan_tcp(where: str, ids: list[int], timeout_ms: float, identify: bool, as_json: bool) -> None:
    from tidegate.runtime.tools.scan import scan_serial

    with (
        TcpReader(where, timeout_s=timeout_ms / 1e3) as reader,
        click.progressbar(length=len(ids), label=where, file=sys.stderr) as bar,
    ):
        found = scan_serial(reader, ids, identify, lambda _: bar.update(1))
    _print_units(
        [row.__dict__ for row in found], where, "the unit id (1 or 255 for most devices), --timeout-ms", as_json
    )


def _print_units(report: list[Message], device: str, check: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    for line in scan_text(report, device):
        click.echo(line)
    if not report:
        click.echo(f"nothing answered on {device}; check {check}", err=True)
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


# ---- read ----


@click.command()
@click.argument("device")
@click.argument("point", required=False, default="")
@click.option("--site", type=click.Path(path_type=Path), help="Site file that has the device.")
@click.option("--serial", "port", help="Without a site: the serial port; DEVICE is then the name of a map.")
@click.option("--tcp", "lan", help="Without a site: Modbus TCP, ADDRESS or ADDRESS:PORT.")
@click.option("--can", "bus", help="Without a site: the CAN bus.")
@click.option("--unit", "unit_id", type=click.IntRange(0, 255), default=1, show_default=True)
@click.option("--baud", type=int, help="Without a site: default is the map's.")
@click.option("--parity", type=click.Choice(["N", "E", "O"]), help="Without a site: default is the map's.")
@click.option(
    "--option", "options", multiple=True, type=ASSIGNMENT, metavar="KEY=VALUE", help="Dialect option of the map."
)
@click.option("--seconds", default=3.0, show_default=True, help="Listen so long on CAN.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def read(
    device: str, point: str, site: Path | None, port: str | None, lan: str | None, bus: str | None, unit_id: int,
    baud: int | None, parity: str | None, options: tuple[tuple[str, str], ...], seconds: float, as_json: bool,
) -> None:  # fmt: skip
    """Read DEVICE once, all points or one POINT. The controller must not be on the bus."""
    from tidegate.runtime.tools.read_once import placed, read_can, read_registers

    if site is not None:
        place = place_in_site(site, device)
    elif [port, lan, bus].count(None) != 2:
        fail("give --site, or one of --serial, --tcp and --can", EXIT_ARGUMENTS)
    else:
        place = Place(map_named(device, options), port, bus, unit_id, baud, parity, lan=lan)
    found = place.map
    try:
        if found.map.protocol == "pylontech":
            readings = _read_pack(place, point)
        elif place.lan is not None:
            with TcpReader(place.lan, place.rtu) as opened_lan:
                if site is None:
                    found = placed(opened_lan, device, dict(options), place.unit_id)
                readings = read_registers(opened_lan, found, place.unit_id, point)
        elif place.port is not None:
            parameters = place.baud or found.modbus.baud, place.parity or found.modbus.parity
            with RegisterReader(place.port, *parameters) as reader:
                if site is None:
                    found = placed(reader, device, dict(options), place.unit_id)
                readings = read_registers(reader, found, place.unit_id, point)
        else:
            with open_can(str(place.bus), found.can.bitrate) as opened:
                readings = read_can(opened, found, seconds, place.can_id_offset, point)
    except ToolError as error:
        fail(error, error.exit_code)
    if as_json:
        click.echo(json.dumps([one.__dict__ for one in readings], indent=1))
        return
    for one in readings:
        shown = "invalid" if one.value is None else f"{one.value:.10g}"
        click.echo(f"{one.name:24} {shown:>14} {one.unit:6} {one.raw:24} {one.register}")


def _read_pack(place: "Place", point: str) -> "list[Reading]":
    from tidegate.runtime.tools.pylon_bus import PylonReader, PylonTcpReader
    from tidegate.runtime.tools.read_once import read_registers

    modbus = place.map.modbus
    if place.lan is None and place.port is None:
        fail(f"{place.map.name} is of a serial line: give --serial or --tcp", EXIT_ARGUMENTS)
    with (
        PylonTcpReader(place.lan)
        if place.lan is not None
        else PylonReader(str(place.port), place.baud or modbus.baud, place.parity or modbus.parity)
    ) as reader:
        return read_registers(reader, place.map, place.unit_id, point)


class Place(NamedTuple):
    """Where a device is read: its map, and a serial port, a TCP address or a CAN bus."""

    map: DeviceMap
    port: str | None
    bus: str | None
    unit_id: int
    baud: int | None
    parity: str | None
    can_id_offset: int = 0
    lan: str | None = None
    rtu: bool = False


def place_in_site(path: Path, name: str) -> Place:
    """Where a site file says that a device is; ends the program if it is not there, or simulated."""
    site, found = site_and_maps(path)
    device = next((one for one in site.device if one.name == name), None)
    if device is None:
        fail(f"{path}: no device is named {name!r}; it has: {', '.join(one.name for one in site.device)}",
             EXIT_ARGUMENTS)  # fmt: skip
    serial = next((one for one in site.serial if one.name == device.bus), None)
    can = next((one for one in site.can if one.name == device.bus), None)
    tcp = next((one for one in site.tcp if one.name == device.bus), None)
    if (serial.device if serial else tcp.host if tcp else can.interface if can else "") == "sim":
        fail(f"{path}: {name} is simulated and exists only while `tidegate run` does: use `tidegate get`",
             EXIT_ARGUMENTS)  # fmt: skip
    if tcp is not None:
        host = f"[{tcp.host}]:{tcp.port}" if ":" in tcp.host else f"{tcp.host}:{tcp.port}"
        unit_id = 1 if device.unit_id is None else device.unit_id
        return Place(found[name], None, None, unit_id, None, None, lan=host, rtu=tcp.framing == "rtu")
    if serial is not None:
        return Place(found[name], serial.device, None, device.unit_id or 1, serial.baud, serial.parity)
    return Place(found[name], None, can.interface if can else None, 0, None, None, device.can_id_offset)


# ---- sniff ----


@click.command()
@click.option("--serial", "port", help="A serial port.")
@click.option("--can", "bus", help="A CAN bus: can0, or INTERFACE:CHANNEL.")
@click.option("--baud", default=9600, show_default=True)
@click.option("--parity", type=click.Choice(["N", "E", "O"]), default="N", show_default=True)
@click.option(
    "--protocol", type=PROTOCOLS, help="What the line speaks; default: what its site or maps say, else modbus."
)
@click.option("--site", type=click.Path(path_type=Path), help="Decode with the devices of this site.")
@click.option("--map", "map_words", multiple=True, metavar="[UNIT=]MAP", help="Decode with this map (serial: 1=NAME).")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to FILE.pcap or FILE.log (candump)."
)
@click.option("--pcap", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file, for Wireshark.")
@click.option("--seconds", type=float, help="End after so long; default: with Ctrl-C.")
@click.option("--quiet", is_flag=True, help="Print nothing but the summary.")
def sniff(
    port: str | None, bus: str | None, baud: int, parity: str, protocol: str | None, site: Path | None,
    map_words: tuple[str, ...],
    out: Path | None, pcap: Path | None, seconds: float | None, quiet: bool,
) -> None:  # fmt: skip
    """Listen to a bus and show what passes, decoded. Sends nothing."""
    if (port is None) == (bus is None):
        fail("give one of --serial and --can", EXIT_ARGUMENTS)
    if out is not None and pcap is not None:
        fail("give one of --out and --pcap", EXIT_ARGUMENTS)
    if pcap is not None and pcap.suffix != ".pcap":
        fail(f"{pcap}: expected a name ending in .pcap", EXIT_ARGUMENTS)
    out = out or pcap
    if out is not None and out.suffix not in ((".pcap",) if port else (".pcap", ".log")):
        fail(f"{out}: expected a name ending in {'.pcap' if port else '.pcap or .log'}", EXIT_ARGUMENTS)
    end = time.monotonic() + seconds if seconds else None
    try:
        if port is not None:
            devices = _serial_devices(port, site, map_words)
            spoken = {"pylontech" if one.map.protocol == "pylontech" else "modbus" for _, one in devices.values()}
            if protocol and spoken - {protocol}:
                fail(f"--protocol {protocol}, but the maps speak {', '.join(spoken)}", EXIT_ARGUMENTS)
            if len(spoken) > 1:
                fail("maps of pylontech and of modbus: a line speaks one of them", EXIT_ARGUMENTS)
            packs = (protocol or next(iter(spoken), "modbus")) == "pylontech"
            _sniff_serial(port, baud, parity, packs, devices, out, end, quiet)
        else:
            assert bus is not None
            _sniff_can(bus, _can_devices(bus, site, map_words), out, end, quiet)
    except ToolError as error:
        fail(error, error.exit_code)


def _serial_devices(port: str, site: Path | None, words: tuple[str, ...]) -> dict[int, tuple[str, DeviceMap]]:
    devices: dict[int, tuple[str, DeviceMap]] = {}
    if site is not None:
        from tidegate.runtime.tools.replay_bus import by_unit

        loaded, found = site_and_maps(site)
        names = {one.name for one in loaded.serial if one.device == port}
        devices = by_unit(loaded, found, names)
    for word in words:
        unit, equals, name = word.rpartition("=")
        if not equals or not unit.isdigit():
            fail(f"--map {word!r}: expected UNIT=MAP on a serial port", EXIT_ARGUMENTS)
        devices[int(unit)] = (name, map_named(name))
    return devices


def _can_devices(bus: str, site: Path | None, words: tuple[str, ...]) -> list[tuple[str, int, DeviceMap]]:
    devices: list[tuple[str, int, DeviceMap]] = []
    if site is not None:
        loaded, found = site_and_maps(site)
        names = {one.name for one in loaded.can if one.interface == bus}
        devices = [(d.name, d.can_id_offset, found[d.name]) for d in loaded.device if d.bus in names]
    return devices + [(word, 0, map_named(word)) for word in words]


def _shown(values: dict[str, float | None]) -> str:
    return ", ".join(f"{key} {'invalid' if value is None else f'{value:g}'}" for key, value in values.items())


def _sniff_serial(
    port: str, baud: int, parity: str, packs: bool, devices: dict[int, tuple[str, DeviceMap]], out: Path | None,
    end: float | None, quiet: bool,
) -> None:  # fmt: skip
    from tidegate.runtime.tools.open_bus import claim
    from tidegate.runtime.tools.pylon_bus import PylonSplitter
    from tidegate.runtime.tools.sniff import LINKTYPE_UPPER_PDU, PcapWriter, RtuSplitter, line_packet, rtu_packet

    splitter = PylonSplitter(devices) if packs else RtuSplitter(devices)
    frames = 0
    tty = claim(port, baud, parity, 1)
    tty.timeout = 0.05  # longer than any gap inside a frame, so an empty read is silence
    handle = out.open("wb") if out else None
    writer = PcapWriter(handle, LINKTYPE_UPPER_PDU) if handle else None
    try:
        while end is None or time.monotonic() < end:
            data = tty.read(max(1, tty.in_waiting))
            t_s = time.time()
            for frame in splitter.feed(data, t_s):
                frames += 1
                if writer:
                    whole = line_packet(frame.data) if packs else rtu_packet(frame.data, frame.kind == "request")
                    writer.write(frame.t_s, whole)
                if not quiet:
                    who = frame.device or f"{'pack' if packs else 'unit'} {frame.unit_id}"
                    text = frame.data.decode("ascii").strip() if packs else frame.data.hex(" ").upper()
                    click.echo(f"{frame.t_s:.3f} {frame.kind:9} {who:12} {text}")
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
