"""nats-py without the HTTP library that it takes along for WebSockets where one is installed: 10 MiB."""

import sys


def import_lean_nats() -> None:
    """Import nats, once, for a line that is TCP or TLS. Does nothing where that library is in use already."""
    if "aiohttp" in sys.modules:
        import nats

        return
    sys.modules["aiohttp"] = None  # type: ignore[assignment]
    try:
        import nats  # noqa: F401
    finally:
        del sys.modules["aiohttp"]
