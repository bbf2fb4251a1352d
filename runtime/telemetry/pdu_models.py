"""Where the families of PDU keep power, temperature and humidity: from their makers' public MIBs, each with its doubts.

A row is a column of a table: whatever instances the agent has below it are read. Numbers are multiplied by `scale`, or
divided by ten to the digits that the agent gives under `digits`, and -1 or less is "not supported".
"""

from dataclasses import dataclass

from tidegate.runtime.telemetry.snmp_codec import Oid

ENTERPRISES: Oid = (1, 3, 6, 1, 4, 1)


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity: power_w, temp_c or humidity of "total", "outlet" or "sensor"."""

    what: str
    of: str
    oid: Oid
    scale: float = 1.0
    ending: int | None = None  # only instances whose last number is this
    digits: Oid | None = None  # instances of the same index hold the decimal digits
    kind: tuple[Oid, int] | None = None  # only where this column holds that number at the same index


@dataclass(frozen=True, slots=True)
class PduModel:
    """A family. doubts : what its MIB leaves open, or what was not seen on a device."""

    name: str
    title: str
    columns: tuple[Column, ...]
    doubts: tuple[str, ...]


def _under(*numbers: int) -> Oid:
    return (*ENTERPRISES, *numbers)


_RARITAN = (13742, 6)
ACTIVE_POWER, TEMPERATURE, HUMIDITY = 5, 10, 11  # of the sensor types of PDU2-MIB
MODELS = {
    model.name: model
    for model in (
        PduModel(
            "apc-rpdu2",
            "APC and Schneider rack PDUs of the second generation (PowerNet-MIB, rPDU2)",
            (
                Column("power_w", "total", _under(318, 1, 1, 26, 4, 3, 1, 5), 10.0),
                Column("power_w", "outlet", _under(318, 1, 1, 26, 9, 4, 3, 1, 7)),
                Column("temp_c", "sensor", _under(318, 1, 1, 26, 10, 2, 2, 1, 8), 0.1),
                Column("humidity", "sensor", _under(318, 1, 1, 26, 10, 2, 2, 1, 10), 0.01),
            ),
            (
                "the total has steps of 10 W (hundredths of a kilowatt)",
                "outlets are there only on models that meter by outlet",
                "not seen on a device; the MIB's text says watts, other programs carry a note that asks for ten times",
            ),
        ),
        PduModel(
            "raritan-pdu2",
            "Raritan PX2, PX3, PX4 and Server Technology Xerus (PDU2-MIB)",
            (
                Column("power_w", "total", _under(*_RARITAN, 5, 2, 3, 1, 4), ending=ACTIVE_POWER,
                       digits=_under(*_RARITAN, 3, 3, 4, 1, 7)),
                Column("power_w", "outlet", _under(*_RARITAN, 5, 4, 3, 1, 4), ending=ACTIVE_POWER,
                       digits=_under(*_RARITAN, 3, 5, 4, 1, 7)),
                Column("temp_c", "sensor", _under(*_RARITAN, 5, 5, 3, 1, 4), digits=_under(*_RARITAN, 3, 6, 3, 1, 17),
                       kind=(_under(*_RARITAN, 3, 6, 3, 1, 2), TEMPERATURE)),
                Column("humidity", "sensor", _under(*_RARITAN, 5, 5, 3, 1, 4), 0.01,
                       digits=_under(*_RARITAN, 3, 6, 3, 1, 17), kind=(_under(*_RARITAN, 3, 6, 3, 1, 2), HUMIDITY)),
            ),
            (
                "several inlets are added; a PDU that lists phases as inlets of their own would count twice",
                "temperatures are read as degrees Celsius; a unit set to Fahrenheit is not noticed",
                "not seen on a device",
            ),
        ),
        PduModel(
            "vertiv-geist",
            "Geist and Vertiv with the IMD, firmware 5 (VERTIV-V5-MIB, GEIST-V5-MIB)",
            (
                Column("power_w", "total", _under(21239, 5, 2, 3, 1, 1, 9)),
                Column("power_w", "outlet", _under(21239, 5, 2, 3, 6, 1, 12)),
            ),
            (
                "the MIB bounds power at 9999 W; what a larger PDU says is not known",
                "temperature and humidity are not read: their tables depend on the sensor that is plugged in",
                "not seen on a device",
            ),
        ),
    )
}  # fmt: skip
