"""Bytes to values and back: CAN frames, Modbus RTU, one thread a serial port."""
