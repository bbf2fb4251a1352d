"""The core process: buses opened, threads started, the loop run, setpoint 0 at the end. It knows no site file."""
