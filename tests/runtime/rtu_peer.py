"""A pymodbus RTU server on a pseudo terminal: a slave that nobody here wrote."""

import asyncio
import contextlib
import os
import select
import threading
import tty

from pymodbus.datastore import ModbusDeviceContext, ModbusServerContext, ModbusSparseDataBlock
from pymodbus.server import ModbusSerialServer


class Wire:
    """Two pseudo terminals joined crosswise. `client` is the device that a master opens, `server` the slave's.

    units: unit ids that exist. pymodbus would answer for the others with an exception; on a real line nobody does.
    """

    def __init__(self, units=range(1, 248)):
        self._units = set(units)
        self._ends = [os.openpty(), os.openpty()]
        for master, slave in self._ends:
            tty.setraw(master)
            tty.setraw(slave)
        self.client, self.server = (os.ttyname(slave) for _, slave in self._ends)
        self.heard = bytearray()  # what the master sent
        self.stray = b""  # what the slave's line driver leaves before each reply
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def _pump(self):
        a, b = (master for master, _ in self._ends)
        while not self._over.is_set():
            for fd in select.select([a, b], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    data = os.read(fd, 512)
                    if fd == a:
                        self.heard += data
                        if len(data) == 8 and data[0] not in self._units:
                            continue
                    os.write(b if fd == a else a, data if fd == a else self.stray + data)

    def close(self):
        self._over.set()
        self._thread.join()
        for pair in self._ends:
            for fd in pair:
                os.close(fd)


class Slaves:
    """pymodbus serving {unit id: {function: {address: word}}} on one end of a wire."""

    def __init__(self, port, units, baud=9600):
        devices = {}
        for unit, spaces in units.items():
            blocks = {
                name: ModbusSparseDataBlock(dict(spaces.get(function, {0: 0})))
                for name, function in (("hr", 3), ("ir", 4))
            }
            devices[unit] = ModbusDeviceContext(**blocks)
        self._context = ModbusServerContext(devices=devices, single=False)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._port, self._baud = port, baud
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self):
        asyncio.set_event_loop(self._loop)

        async def serve():
            self._server = ModbusSerialServer(
                self._context, port=self._port, baudrate=self._baud, ignore_missing_devices=True
            )
            task = asyncio.ensure_future(self._server.serve_forever(background=False))
            await asyncio.sleep(0.2)
            self._ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        with contextlib.suppress(RuntimeError):
            self._loop.run_until_complete(serve())

    def close(self):
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(10)
        self._thread.join(10)


def words_of_text(text, size):
    """SunSpec text: two characters a word, padded with zeros."""
    raw = text.encode().ljust(2 * size, b"\0")
    return [raw[i] << 8 | raw[i + 1] for i in range(0, 2 * size, 2)]


def words_of_float(value):
    """f32, high word first."""
    import struct

    raw = struct.pack(">f", value)
    return [raw[0] << 8 | raw[1], raw[2] << 8 | raw[3]]
