"""A Modbus RTU slave of pymodbus on a serial port: python slave.py PORT BAUD. Register n of unit 1 holds 1000 + n."""

import asyncio
import sys

import pymodbus.datastore as store
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer


async def main(port: str, baud: int) -> None:
    block = store.ModbusSequentialDataBlock(1, [1000 + n for n in range(500)])
    device = store.ModbusDeviceContext(hr=block)
    context = store.ModbusServerContext(devices={1: device}, single=False)
    server = ModbusSerialServer(
        context, framer=FramerType.RTU, port=port, baudrate=baud, parity="E", stopbits=1, ignore_missing_devices=True
    )
    serving = asyncio.create_task(server.serve_forever())
    print("ready", flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
