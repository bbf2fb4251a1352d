"""`tidegate backup` and `tidegate restore`: a site in one signed file, and back."""

import sys
import tempfile
import time
from pathlib import Path

import click

from tidegate.runtime.backup import make as making
from tidegate.runtime.backup import places, scheduled
from tidegate.runtime.backup import restore as restoring
from tidegate.runtime.backup.manifest import BackupError, Manifest
from tidegate.runtime.cli.common import (
    EXIT_BUSY,
    EXIT_CANNOT_WRITE,
    EXIT_CONTENT,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    fail,
    refuse_site,
    requirement,
)
from tidegate.runtime.state import paths


@click.command()
@click.argument("target", metavar="FILE|PLACE")
@click.option("--site-file", "site_file", type=click.Path(path_type=Path), required=True, help="The site's file.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="As given to `tidegate run`.")
@click.option("--keys/--no-keys", default=None, help="With the secrets of device and clients, or without.")
@click.option("--recordings", is_flag=True, help="Also the recorder's files.")
@click.option("--keep", type=click.IntRange(1, 10_000), default=14, show_default=True, help="At a place: so many stay.")
@click.option("--every-h", type=click.FloatRange(0.1, 8760), default=24.0, show_default=True,
              help="At a place: so often one is due; after twice that the site says that it is late.")  # fmt: skip
@click.option("--access", type=click.Path(path_type=Path), help="TOML file with what SFTP or S3 asks; chmod 600.")
def backup(
    target: str, site_file: Path, state_dir: Path | None, keys: bool | None, recordings: bool, keep: int,
    every_h: float, access: Path | None,
) -> None:  # fmt: skip
    """Write FILE: site file, journal, ledger, latches, users, and by choice keys, under a signed manifest.

    PLACE is an existing folder, sftp://USER@HOST:PORT/FOLDER or s3://BUCKET/PREFIX: a file SITE-TIME.tgz is kept there,
    the oldest ones go. The site may run meanwhile. Whoever holds a file with keys can speak as the device and as its
    clients.
    """
    from tidegate.config.site import SiteError, load_site

    if keys is None:
        fail("say --keys (whoever holds the file then has the secrets) or --no-keys", EXIT_USAGE)
    file = Path(target)
    try:
        site = load_site(site_file)
        state = (state_dir or paths.state_root()) / paths.folder_name(site.site.name)
        if not places.is_place(target):
            manifest = making.make(file, site, site_file, state, keys=keys, recordings=recordings)
            said = f"{file}: written, {file.stat().st_size / 1e6:.1f} MB"
        else:
            shown_place = places.without_password(target).rstrip("/")
            name, manifest, gone = scheduled.run(
                lambda: places.opened(target, places.read_access(access)), shown_place, site, site_file, state,
                keys=keys, recordings=recordings, keep=keep, every_h=every_h,
            )  # fmt: skip
            said = f"{shown_place}/{name}: written" + (f"; taken away: {', '.join(gone)}" if gone else "")
    except SiteError as why:
        refuse_site(why, "nothing was written")
    except BackupError as why:
        fail(why, EXIT_CONTENT)
    except ModuleNotFoundError as why:
        fail(f"{why.name} is not installed; run: pip install {requirement('backup')}", EXIT_UNAVAILABLE)
    except OSError as why:
        fail(f"{why.filename or file}: {why.strerror}", EXIT_CANNOT_WRITE)
    for line in shown(manifest):
        click.echo(line)
    click.echo(said)


@click.command()
@click.argument("source", metavar="FILE|PLACE/FILE")
@click.option("--site-file", type=click.Path(path_type=Path), help="Where the site file goes; default: its name, here.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="As will be given to `tidegate run`.")
@click.option("--key", help="Public key, hex, that must have signed; `backup` prints it.")
@click.option("--replace", is_flag=True, help="Move aside what is there.")
@click.option("--check", "only_check", is_flag=True, help="Only check FILE; write nothing.")
@click.option("--access", type=click.Path(path_type=Path), help="TOML file with what SFTP or S3 asks; chmod 600.")
def restore(
    source: str, site_file: Path | None, state_dir: Path | None, key: str | None, replace: bool, only_check: bool,
    access: Path | None,
) -> None:  # fmt: skip
    """Put the site of FILE back; its ledger says so. Refused while the site runs here.

    A file at sftp:// or s3:// is fetched first; an address that ends in / lists what is there.
    """
    with tempfile.TemporaryDirectory(prefix="tidegate-restore-") as folder:
        file = fetched(source, Path(folder), access)
        put_back(file, site_file, state_dir, key, replace, only_check)


def fetched(source: str, folder: Path, access: Path | None) -> Path:
    """The file itself, from wherever it lies; ends after a list, or where there is none."""
    try:
        if not places.is_place(source):
            return Path(source)
        place, _, name = source.rpartition("/")
        with places.opened(place if "://" in source else source, places.read_access(access)) as there:
            if not name or "://" not in source:
                click.echo("\n".join(sorted(there.names())))
                sys.exit(0)
            there.get(name, folder / name)
            return folder / name
    except BackupError as why:
        fail(why, EXIT_CONTENT)
    except ModuleNotFoundError as why:
        fail(f"{why.name} is not installed; run: pip install {requirement('backup')}", EXIT_UNAVAILABLE)


def put_back(
    file: Path, site_file: Path | None, state_dir: Path | None, key: str | None, replace: bool, only_check: bool
) -> None:
    """Check a backup, and put it back where not only that is asked."""
    if not file.is_file():
        fail(f"{file}: no such file", EXIT_USAGE)
    try:
        if only_check:
            for line in shown(restoring.check(file, key)):
                click.echo(line)
            click.echo(f"{file}: whole")
            return
        manifest = restoring.manifest_of(file)
        folder = paths.folder_name(manifest.site)
        running = {name: pid for root in (paths.runtime_root(), paths.SERVICE_RUNTIME) if root.is_dir()
                   for name, pid in paths.running_sites(root).items()}  # fmt: skip
        if folder in running:
            fail(f"site {manifest.site} is run by process {running[folder]}; end it first", EXIT_BUSY)
        state = (state_dir or paths.state_root()) / folder
        target = site_file or Path(manifest.site_file)
        restoring.restore(file, state, target, key=key, replace=replace)
    except (BackupError, ValueError) as why:
        fail(why, EXIT_CONTENT)
    except OSError as why:
        fail(f"{why.filename or file}: {why.strerror}", EXIT_CANNOT_WRITE)
    for line in shown(manifest):
        click.echo(line)
    click.echo(f"{state}: restored; {target}: written. Next: tidegate check {target}; tidegate run {target}")


def shown(manifest: Manifest) -> list[str]:
    """What a backup holds, for people."""
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.made_utc_s))
    size = sum(one.bytes for one in manifest.files)
    lines = [
        f"site {manifest.site}, {made}, release {manifest.release}: {len(manifest.files)} files, {size / 1e6:.1f} MB"
    ]
    lines += [f"signed by {manifest.key}", f"keys: {'in it' if manifest.with_keys else 'not in it'}"]
    return lines + [f"not in it: {text}" for text in manifest.left_out]
