"""The public name of the Python client: `from tidegate.runtime.client import Client`."""

from tidegate.runtime.api.blocking_client import *  # noqa: F403
from tidegate.runtime.api.curve_keys import client_keys  # noqa: F401
