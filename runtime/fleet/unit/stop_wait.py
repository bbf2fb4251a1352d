"""The pause of a process that works in turns until it is stopped."""

import asyncio


async def paused(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until the stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
