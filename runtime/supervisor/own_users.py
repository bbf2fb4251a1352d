"""The users of a site's processes at its start: who gets one of its own, and what each is to find there."""

import contextlib
import importlib.util
from pathlib import Path

from tidegate.config.site import Site
from tidegate.runtime.state import process_users
from tidegate.runtime.state.held import LEDGER, LEDGER_DIR, NOTIFY, NOTIFY_DIR, take_base_in
from tidegate.runtime.state.key_store import KeyProblem, one_store
from tidegate.runtime.state.process_users import DEVICE_KEY, Identity
from tidegate.runtime.state.syscalls import forbid_users
from tidegate.runtime.telemetry import energy_store

BASES = ((LEDGER_DIR, LEDGER), (energy_store.FOLDER, energy_store.NAME), (NOTIFY_DIR, NOTIFY))


class OwnUsers:
    """Process -> user, for one site; empty where all of them have ours. said : for people, why that is so."""

    def __init__(self) -> None:
        self.by_process: dict[str, Identity] = process_users.identities()
        why = process_users.why_shared()
        is_installed = process_users.identity_of(process_users.user_of("gateway")) is not None
        self.said = [f"all processes run as one user: {why}"] if why and is_installed else []

    def of(self, process: str) -> Identity | None:
        """Whom a process becomes, None = nobody else."""
        return self.by_process.get(process)

    def prepare(self, site: Site, state: Path, runtime: Path) -> list[str]:
        """Hand out folders, files with secrets, and the right to become these users only; what could not be, in words.

        Before the first process starts. Keys that are only read from here on are made now, since no process that reads
        them may write them.
        """
        if site.gateway.endpoint and not site.gateway.plain_loopback:
            with contextlib.suppress(KeyProblem, OSError):  # gateway and remote say what is wrong with it
                one_store(state, site.gateway.keys)
        if not self.by_process:
            return []
        problems = []
        try:
            self._make_keys(site, state)
            for folder, base in BASES:
                if (state / base).exists():  # of an earlier release; its new owner may not take it out of our folder
                    take_base_in(state, folder, base)
        except (OSError, ValueError) as why:
            problems.append(str(why))
        problems += process_users.share(state, runtime, [(state / DEVICE_KEY, "carbon"), *_secrets(site)])
        who = self.by_process.values()
        lack = forbid_users([one.uid for one in who], [one.gid for one in who])
        return [*problems, *([lack] if lack else [])]

    @staticmethod
    def _make_keys(site: Site, state: Path) -> None:
        """What makes them is imported only where they are missing, since it stays in this process for ever."""
        if not (state / DEVICE_KEY).exists() and importlib.util.find_spec("cryptography") is not None:
            from tidegate.runtime.state.device_key import DeviceKey

            DeviceKey.at(state / DEVICE_KEY)
        gateway = site.gateway
        if gateway.endpoint and not gateway.plain_loopback:
            from tidegate.runtime.api.curve_keys import server_keys

            with contextlib.suppress(KeyProblem):  # the process that needs it says what is wrong
                server_keys(one_store(state, gateway.keys))


def _secrets(site: Site) -> list[tuple[Path, str]]:
    """Files beside the site file that hold a secret, and the process that reads each."""
    named = [(one.key_file, "carbon") for one in site.carbon.fetch]
    for source in site.telemetry:
        named += [(file, "telemetry") for file in (source.password_file, source.community_file, source.privacy_file)]
    if site.notify is not None:
        named += [(one.url_file, "notify") for one in site.notify.to]
    return [(site.folder / name, process) for name, process in named if name]
