"""`tidegate devices`: the shipped device maps and what they know."""

import json
from pathlib import Path

import click

from tidegate.config.site import Site, SiteError, load_site
from tidegate.config.site_maps import load_maps
from tidegate.hal import maps
from tidegate.hal.device_page import battery_power, unchecked
from tidegate.hal.map_check import check_file
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNUSABLE, fail, print_line, refuse_site
from tidegate.runtime.cli.device_new import new


def site_and_maps(path: Path) -> tuple[Site, dict[str, DeviceMap]]:
    """A site file with the map of each of its devices by the device's name; ends the program with its problems."""
    try:
        site = load_site(path)
    except SiteError as error:
        refuse_site(error)
    problems: list[str] = []
    found = load_maps(site, problems)
    if problems:
        fail("\n".join(problems), EXIT_UNUSABLE)
    return site, found


def map_named(name: str, options: tuple[tuple[str, str], ...] = ()) -> DeviceMap:
    """A shipped map, or that of a .toml file, with dialect options; ends the program with its problems."""
    try:
        return maps.load_map(name, dict(options) or None)
    except maps.MapError as error:
        fail("\n".join(error.problems), EXIT_CONTENT)


class MapGroup(click.Group):
    """`devices MAP` is short for `devices show MAP`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=MapGroup, invoke_without_command=True)
@click.option("--kind", type=click.Choice(["bms", "pcs", "meter"]), help="Only this kind.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def devices(ctx: click.Context, kind: str | None, as_json: bool) -> None:
    """List the shipped device maps; `show MAP` describes one."""
    if ctx.invoked_subcommand is not None:
        return
    rows = [maps.shipped(one) for one in maps.map_names()]
    rows = [row for row in rows if kind in (None, row.map.kind)]
    if as_json:
        listed = [{"name": r.name, "kind": r.map.kind, "protocol": r.map.protocol, "title": r.map.title} for r in rows]
        click.echo(json.dumps(listed, indent=1))
        return
    for row in rows:
        click.echo(f"{row.name:22} {row.map.kind:6} {row.map.protocol:8} {row.map.title}")


@devices.command()
@click.argument("name", metavar="MAP")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(name: str, as_json: bool) -> None:
    """Describe MAP (its name, or a .toml file): signals with units and registers, commands, options, open questions."""
    found = map_named(name)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json", by_alias=True), indent=1))
    else:
        describe(found)


@devices.command()
@click.argument("path", metavar="FILE")
def check(path: str) -> None:
    """Check the device map FILE, or a shipped one by its name: its keys, its vectors, its registers.

    Says each fault with line, key and remedy.
    """
    if not Path(path).is_file():
        map_named(path)  # a shipped map, or "did you mean"
        path = str(maps.map_folder().joinpath(f"{path}.toml"))
    findings = check_file(path)
    for one in findings:
        print_line(f"{path}:{one.line}: {one.text}" if one.line else f"{path}: {one.text}", err=True)
    if findings:
        fail(f"{path}: {len(findings)} problem{'s' if len(findings) > 1 else ''}", EXIT_CONTENT)
    click.echo(f"{path}: good")


def describe(found: DeviceMap) -> None:
    """Print a map as a table."""
    print_line(f"{found.name}: {found.map.title}")
    print_line(f"kind {found.map.kind}, speaks {found.map.protocol}")
    print_line(f"source: {found.map.source}")
    if found.map.kind == "pcs":
        print_line(battery_power(found))
    if found.map.kind == "bms":
        print_line(f"not checked on the wire: {unchecked(found)}")
    for text in found.map.doubts:
        print_line(f"open question: {text}")
    for key, option in found.option.items():
        choices = ", ".join(choice.value for choice in option.choice)
        print_line(f"option {key} = {choices} (default {option.default}): {option.meaning}")
    for key, number in found.number.items():
        default = "must be given" if number.default is None else f"default {number.default:g}"
        print_line(f"option {key} in {number.unit} ({default}): {number.meaning}")
    for p in found.point:
        if not p.hidden:
            where = f"{p.function}:{p.address}" if found.map.protocol != "sunspec" else f"{p.model}.{p.field}"
            print_line(f"  {p.name:24} {p.unit:6} {where:16} {p.type:7} {p.poll:5} {p.register_name}")
    for frame in found.frame:
        print_line(f"  frame 0x{frame.id:X}{' (29 bit)' if frame.extended else ''} every {frame.period_ms:g} ms")
        for s in frame.signal:
            print_line(f"    {s.name:22} {s.unit:6} bits {s.start}+{s.length} {s.byte_order:7} {s.register_name}")
    for c in found.command:
        print_line(f"  write {c.name:18} {c.kind:10} {c.function}:{c.address} {c.type}")
    for tx in found.transmit:
        print_line(f"  send 0x{tx.id:X} {tx.name} every {tx.period_ms:g} ms ({tx.kind})")


devices.add_command(new)
