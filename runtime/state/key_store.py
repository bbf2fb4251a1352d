"""Where the keys of a site's clients lie: one folder, whatever the site file says.

Without libzmq, since the supervisor settles it at the start of a site: the processes that need the keys may not write
into the site's state folder.
"""

import time
from pathlib import Path

FOLDER, ROLES = "keys", "roles.toml"


class KeyProblem(ValueError):
    """A key file or table that cannot be used; says which, where and what to do."""


def folder_of(state: Path) -> Path:
    """The site's key folder; made if it is missing."""
    folder = state / FOLDER
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    return folder


def one_store(state: Path, configured: str | None) -> Path:
    """The one key folder of a site, whose name in the state folder is always `keys`.

    Where the site file puts it elsewhere, `keys` becomes a link to there, so that `tidegate keys` and the gateway never
    mean two. What is right already is left alone. Raises KeyProblem if keys were granted in both, OSError.
    """
    here = state / FOLDER
    if not configured or Path(configured).resolve() == here.resolve():
        return Path(configured) if configured and here.is_symlink() else folder_of(state)
    there = Path(configured)
    if here.is_symlink():
        here.unlink()
    elif here.exists():
        if (here / ROLES).exists():
            raise KeyProblem(
                f"keys were granted in {here} and the site file says gateway.keys = {there}; a key that is revoked in "
                f"one would work on in the other. Move {here / ROLES} there, or leave gateway.keys out"
            )
        here.rename(here.with_name(f"{FOLDER}.unused-{time.time_ns()}"))
    there.mkdir(mode=0o750, parents=True, exist_ok=True)
    here.symlink_to(there.resolve(), target_is_directory=True)
    return there
