"""What a module of this package says of bytes that are not believed yet, asked in a process of its own."""

import asyncio
import sys

import msgspec

from tidegate.runtime.api.messages import Refused


async def checked_apart(what: str, module: str, *words: str, given: bytes, limit_s: float) -> dict[str, object]:
    """The JSON object that `module` prints, with `given` on its standard input.

    what : of the check, for people. Raises Refused "unavailable" after limit_s, "internal" where the process fails.
    """
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        out, complaint = await asyncio.wait_for(running.communicate(given), limit_s)
    except TimeoutError:
        raise Refused("unavailable", f"{what} took longer than {limit_s:.0f} s; try again") from None
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    if running.returncode:
        last = (complaint.decode("utf-8", "replace").strip().splitlines() or ["no word"])[-1]
        raise Refused("internal", f"{what} ended with code {running.returncode}: {last[:200]}")
    found: dict[str, object] = msgspec.json.decode(out)
    return found
