"""The core process: buses opened, threads started, the loop run, setpoint 0 at the end. It knows no site file."""

import sys

if "tidegate.runtime.core.process" in sys.orig_argv and "hashlib" not in sys.modules:
    # Memory of the core is locked, all of each library in it. It hashes a few megabytes once, which Python's own code
    # does as well as OpenSSL's library of 5 MiB.
    sys.modules["_hashlib"] = None  # type: ignore[assignment]
