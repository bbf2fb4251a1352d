"""What is behind the alarms: evidence put together into a cause and the next thing to do.

A fault row says that readings are bad or that a limit was met. A technician needs the line before that: which sensor,
which wire, which meter. Every finding names its evidence, so that it can be checked.
"""

from collections.abc import Iterator

from tidegate.runtime.findings import bus_findings, plant_findings
from tidegate.runtime.findings.evidence import Finding, active_faults, latched_faults
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.findings.text import age


def findings(plant: Plant) -> list[Finding]:
    """All that can be told now, the weightiest first."""
    if not plant.described:
        return []
    found = [*_core(plant), *bus_findings.look(plant), *plant_findings.look(plant), *_orders(plant)]
    return sorted(found, key=lambda one: -one.weight)


def _core(plant: Plant) -> Iterator[Finding]:
    """The controller itself."""
    core = plant.now.health.core
    if core is not None and not core.running:
        yield Finding(100, "the core does not run", "the gateway says so", "start the site: `tidegate run SITE`")
    elif core is not None and core.stalled:
        yield Finding(
            100,
            "the core stands still",
            f"its last cycle was {age(core.image_age_ms)} ago",
            "restart the site; keep the log of the core",
        )
    error = plant.now.health.journal.error
    if error:
        yield Finding(20, "the journal cannot be written", error, "free or repair the disk; control is not affected")


def _orders(plant: Plant) -> Iterator[Finding]:
    """What waits for a person."""
    if plant.now.why.stopped:
        yield Finding(10, "stopped by order", "somebody said stop", "arm, when the cabinet may work again")
    elif plant.now.why.mode == "tripped" and not active_faults(plant):
        latched = latched_faults(plant)
        if latched:
            yield Finding(15, "waits for an acknowledgement", ", ".join(fault for _, fault in latched), "ack, then arm")
        elif not plant.now.health.gateway.autostart:
            yield Finding(15, "waits to be armed", "no fault is present, autostart is off", "arm")
    elif plant.now.why.mode != "tripped":  # a site runs with the units that it has
        yield from _units_left_out(plant)


def _units_left_out(plant: Plant) -> Iterator[Finding]:
    """Units that stand tripped beside others that work, with nothing left that keeps them."""
    idle = [unit for unit in plant.now.why.units if unit.mode == "tripped" and not unit.faults]
    latched = [unit for unit in idle if unit.latches]
    if latched:
        rows = ", ".join(f"{unit.name}: {', '.join(unit.latches)}" for unit in latched)
        yield Finding(15, "a unit waits for an acknowledgement", rows, "ack, then arm")
    unlatched = ", ".join(unit.name for unit in idle if not unit.latches)
    if unlatched and not plant.now.health.gateway.autostart:
        yield Finding(15, "a unit waits to be armed", f"{unlatched}: no fault is present, autostart is off", "arm")
