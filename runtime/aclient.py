"""The public name of the asyncio client: `from tidegate.runtime.aclient import AsyncClient`."""

from tidegate.runtime.api.async_client import *  # noqa: F403
