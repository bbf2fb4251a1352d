"""Servers and PDUs over Redfish: power of each chassis, inlet temperatures, humidity (DSP0266, DSP0268).

Old and new shapes are read: Power and Thermal, and Sensors or EnvironmentMetrics where those are gone.
"""

import msgspec

from tidegate.runtime.telemetry.http_get import Access, HttpError, get
from tidegate.runtime.telemetry.sample import Heard, Reading, Sample, Thing, nothing, plausible_w, shortened

BODY_BYTES_MAX = 1 << 20
CHASSIS_MAX = 32
TEMPERATURES_MAX = 64
PATH_MAX = 256


class Link(msgspec.Struct):
    id: str = msgspec.field(name="@odata.id", default="")


class Collection(msgspec.Struct):
    Members: list[Link] = []


class Chassis(msgspec.Struct):
    Id: str = ""
    Power: Link | None = None
    Thermal: Link | None = None
    EnvironmentMetrics: Link | None = None


class Control(msgspec.Struct):
    PowerConsumedWatts: float | None = None


class Power(msgspec.Struct):
    PowerControl: list[Control] = []


class Temperature(msgspec.Struct):
    Name: str | None = None
    ReadingCelsius: float | None = None
    PhysicalContext: str | None = None


class Thermal(msgspec.Struct):
    Temperatures: list[Temperature] = []


class Excerpt(msgspec.Struct):
    Reading: float | None = None


class EnvironmentMetrics(msgspec.Struct):
    PowerWatts: Excerpt | None = None
    TemperatureCelsius: Excerpt | None = None
    HumidityPercent: Excerpt | None = None


class RedfishHost:
    """One BMC or PDU. What it has is found at the start, and again after it failed."""

    def __init__(self, host: str, scheme: str, access: Access, rack: str, timeout_s: float) -> None:
        self.host = host
        self._root = f"{scheme}://{host}"
        self._access, self._rack, self._timeout_s = access, rack, timeout_s
        self._chassis: list[Chassis] | None = None

    async def hear(self) -> Heard:
        """Ask once. Raises HttpError."""
        try:
            return await self._hear()
        except HttpError:
            self._chassis = None
            raise

    async def _get(self, path: str, kind: type[msgspec.Struct]) -> msgspec.Struct:
        if not path.startswith("/") or len(path) > PATH_MAX or not path.isprintable() or " " in path:
            raise HttpError("a link that leads elsewhere")
        body = await get(self._root + path, self._access, self._timeout_s, BODY_BYTES_MAX)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as why:
            raise HttpError(f"{path}: {why}"[:200]) from None

    async def _find(self) -> list[Chassis]:
        whole = await self._get("/redfish/v1/Chassis", Collection)
        assert isinstance(whole, Collection)
        found = []
        for link in whole.Members[:CHASSIS_MAX]:
            one = await self._get(link.id, Chassis)
            assert isinstance(one, Chassis)
            found.append(one)
        return found

    async def _hear(self) -> Heard:
        if self._chassis is None:
            self._chassis = await self._find()
        heard = nothing()
        watts: list[float] = []
        for chassis in self._chassis:
            power = await self._power(chassis, heard)
            if power is not None:
                watts.append(power)
            if chassis.Thermal is not None:
                thermal = await self._get(chassis.Thermal.id, Thermal)
                assert isinstance(thermal, Thermal)
                for one in thermal.Temperatures[:TEMPERATURES_MAX]:
                    if one.ReadingCelsius is not None and -60.0 <= one.ReadingCelsius <= 200.0:
                        what = "inlet_c" if one.PhysicalContext in ("Intake", "Inlet") else "temp_c"
                        name = shortened(f"{self.host} {one.Name or chassis.Id}")
                        heard.readings.append(Reading(what, name, one.ReadingCelsius))
        if not watts:
            raise HttpError("no chassis says a power")
        heard.samples.append(Sample(Thing("server", self.host, self.host, self._rack), sum(watts)))
        return heard

    async def _power(self, chassis: Chassis, heard: Heard) -> float | None:
        """Power of a chassis, W; None where it says none."""
        found: float | None = None
        if chassis.EnvironmentMetrics is not None:
            metrics = await self._get(chassis.EnvironmentMetrics.id, EnvironmentMetrics)
            assert isinstance(metrics, EnvironmentMetrics)
            found = metrics.PowerWatts.Reading if metrics.PowerWatts is not None else None
            rows = (("temp_c", metrics.TemperatureCelsius, 1.0), ("humidity", metrics.HumidityPercent, 0.01))
            for what, excerpt, scale in rows:
                if excerpt is not None and excerpt.Reading is not None:
                    name = shortened(f"{self.host} {chassis.Id}")
                    heard.readings.append(Reading(what, name, excerpt.Reading * scale))
        if found is None and chassis.Power is not None:
            power = await self._get(chassis.Power.id, Power)
            assert isinstance(power, Power)
            # The first control is the chassis as a whole; further ones are parts of it.
            found = power.PowerControl[0].PowerConsumedWatts if power.PowerControl else None
        if found is not None and not plausible_w(found):
            heard.problems.append(f"{self.host}: {shortened(chassis.Id)} says {found:g} W; it is not counted")
            return None
        return found
