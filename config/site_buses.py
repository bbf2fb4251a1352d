"""The buses of a site file: serial ports, Modbus over TCP, CAN."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tidegate.hal import description

# Defaults stand once, in hal/description.py.
_SERIAL, _CAN, _TCP = description.SerialPort(name=""), description.CanBus(name=""), description.TcpBus(name="")

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=15)]
Watt = Annotated[float, Field(ge=0, le=1e8)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Unknown keys are refused, not ignored; infinities and NaN are not numbers here."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Serial(Strict):
    """One RS-485 port."""

    name: Name
    device: Annotated[str, Field(min_length=1, description='path of the tty, or "sim"')]
    baud: Annotated[int, Field(ge=300, le=4_000_000)] = _SERIAL.baud
    parity: Literal["N", "E", "O"] = _SERIAL.parity
    stop_bits: Literal[1, 2] = _SERIAL.stop_bits
    gap: Literal["spec", "chars"] | Annotated[int, Field(ge=1, le=100_000, description="us")] = _SERIAL.gap
    strip_echo: bool = False
    protocol: Annotated[
        Literal["modbus", "pylontech"], Field(description="pylontech: packs of that maker, in its ASCII frames")
    ] = _SERIAL.protocol
    lead_in_bytes: Annotated[
        int, Field(ge=0, le=3, description="stray bytes of a line driver that may touch the front of a reply")
    ] = _SERIAL.lead_in_bytes
    rs485: Annotated[bool, Field(description="let the driver switch direction (TIOCSRS485)")] = False


class Tcp(Strict):
    """TCP to one address: a meter, a converter, or a gateway with a serial line behind it."""

    name: Name
    host: Annotated[str, Field(min_length=1, max_length=45, description='IPv4 or IPv6 address, or "sim"')]
    port: Annotated[int, Field(ge=1, le=65_535)] = _TCP.port
    framing: Annotated[
        Literal["tcp", "rtu", "pylontech"],
        Field(
            description="rtu, pylontech: RTU frames, or the ASCII frames of Pylontech packs, as on a line, from a "
            "gateway that knows no Modbus"
        ),
    ] = _TCP.framing
    connections: Annotated[int, Field(ge=1, le=8, description="its devices are shared out over so many")] = (
        _TCP.connections
    )
    pipeline: Annotated[
        int, Field(ge=1, le=8, description="requests in flight on one connection, each to another device")
    ] = _TCP.pipeline
    latency_ms: Annotated[float, Field(gt=0, le=10_000, description="of an answer, for planning")] = _TCP.latency_ms
    baud: Annotated[
        int, Field(ge=300, le=4_000_000, description="of the line behind, with framing rtu and pylontech")
    ] = _TCP.baud
    parity: Literal["N", "E", "O"] = _TCP.parity
    stop_bits: Literal[1, 2] = _TCP.stop_bits

    @model_validator(mode="after")
    def _one_line(self) -> "Tcp":
        if self.framing != "tcp" and self.connections * self.pipeline > 1:
            raise ValueError(
                f"framing {self.framing} is one line: one connection and one request in flight; remove the keys"
            )
        return self


class Can(Strict):
    """One CAN bus."""

    name: Name
    interface: Annotated[str, Field(min_length=1, max_length=255, description='can0, "sim", or a python-can URL')]
    bitrate: Annotated[int, Field(ge=10_000, le=1_000_000)] = _CAN.bitrate
