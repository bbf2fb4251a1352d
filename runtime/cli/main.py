"""The command line, `tidegate`.

Each command imports what it needs when it runs, so that `--help` is quick and a missing extra is named by the command
that wants it.
"""

from typing import NamedTuple

import click

from tidegate.runtime.cli.common import need


class Place(NamedTuple):
    """Where a command lives: module:attribute, the extra that it wants ("" = none), one line of help."""

    where: str
    extra: str
    help: str


COMMANDS = {
    "alarms": Place("gateway_commands:alarms", "", "What is wrong, since when, why, and what to do."),
    "audit": Place("audit_command:audit", "", "Is the trail of orders whole? Verify, export, anchor."),
    "backup": Place("backup_commands:backup", "carbon", "A site in one signed file."),
    "carbon": Place("carbon_commands:carbon", "carbon", "Energy and carbon: book, report, verify."),
    "check": Place("site_commands:check", "", "Check a site file; say what is wrong, or what it would do."),
    "commission": Place("commission_command:commission", "commission", "Move the battery, measure, sign a report."),
    "control": Place("stop_commands:control", "", "Take orders on site only, or from other machines too."),
    "console": Place("console_command:console", "", "The serial console, in this terminal."),
    "demo": Place("demo_command:demo", "carbon,tools", "The whole chain on a GPU cluster's power, with a report."),
    "devices": Place("device_commands:devices", "", "Shipped device maps and what they know."),
    "doctor": Place("doctor_command:doctor", "tools", "What the machine lacks and costs."),
    "export": Place("export_commands:export", "export", "Prometheus, Modbus TCP, MQTT."),
    "get": Place("gateway_commands:get", "", "Present values of points."),
    "grid-operator": Place("control_commands:grid_operator", "", "An order of the grid's operator: a limit, a stop."),
    "fleet": Place("fleet_commands:fleet", "fleet", "Send this site's ledger to a hub."),
    "hub": Place("fleet_commands:hub", "fleet", "Keep the ledgers of many sites."),
    "init": Place("init_command:init", "tools", "Look at the buses, draft a site file."),
    "island-devices": Place("island_commands:island_devices", "island", "A genset's start and PV limits in an island."),
    "keys": Place("key_commands:keys", "", "Keys and roles of remote clients."),
    "lock": Place("stop_commands:lock", "", "Stop the site and lock it under your name."),
    "notify": Place("notify_commands:notify", "notify", "Tell people of alarms: mail, webhook, ntfy and others."),
    "openadr": Place("openadr_commands:openadr", "openadr", "Events of a utility by OpenADR 3, and reports back."),
    "plan": Place("plan_commands:plan", "planner", "A day ahead: what the battery does when, why, and what it saves."),
    "planner": Place("planner_commands:planner", "planner", "Plan each quarter hour, by itself."),
    "policy": Place("control_commands:policy", "", "Another limit or preference while the site runs."),
    "read": Place("bus_commands:read", "tools", "Read a device once."),
    "record": Place("recording_commands:record", "recorder", "Write the last minutes to a file."),
    "replay": Place("recording_commands:replay", "recorder", "Run the core over a recording again."),
    "replay-bus": Place("replay_bus_command:replay_bus", "tools", "What each frame of a capture becomes on a site."),
    "restart": Place("stop_commands:restart", "", "Restart a site of this machine; the power goes to zero first."),
    "restore": Place("backup_commands:restore", "carbon", "Put a backup back."),
    "run": Place("site_commands:run", "", "Run a site: core, gateway and carbon sidecar, until Ctrl-C or SIGTERM."),
    "scan": Place("bus_commands:scan", "tools", "Look for devices on a bus."),
    "schedule": Place("control_commands:schedule", "", "The calendar and a plan by the clock."),
    "set": Place("gateway_commands:set_", "", "Order a setpoint, a limit, stop, run or ack."),
    "simulate": Place("simulate:simulate", "", "A simulated cabinet behind ptys, to talk to."),
    "sniff": Place("bus_commands:sniff", "tools", "Listen to a bus."),
    "stop": Place("stop_commands:stop", "", "Stop a site of this machine, whatever of it still works."),
    "unlock": Place("stop_commands:unlock", "", "Take a lock off; the stop stays."),
    "update": Place("update_commands:update", "carbon", "A signed release onto this machine, and back."),
    "watch": Place("gateway_commands:watch", "", "Watch the site live."),
    "web": Place("web_commands:web", "web", "The operator's page over HTTPS, and the REST API."),
    "why": Place("gateway_commands:why", "", "Why the setpoint is what it is."),
}  # fmt: skip


class Registry(click.Group):
    """A group whose commands live in other modules, which are imported when a command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].where.partition(":")
        command: click.Command = getattr(need(f"tidegate.runtime.cli.{module}", COMMANDS[name].extra), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in sorted(COMMANDS)])


@click.group(cls=Registry, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidegate", prog_name="tidegate")
def main() -> None:
    """Millisecond controller and carbon accountant for a battery cabinet beside a compute room."""


if __name__ == "__main__":
    main()
