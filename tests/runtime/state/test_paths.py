"""Which folders a process takes: its own, or those of the installed service where it is the service's user."""

import os
from pathlib import Path

import pytest

from tidegate.runtime.api.connection import NoAnswer, find_endpoint
from tidegate.runtime.state import paths
from tidegate.runtime.state.paths import SiteBusy, SiteLock


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine on which nothing is installed yet: (folder of the runtime, folder of the state)."""
    for name in ("TIDEGATE_RUNTIME_DIR", "TIDEGATE_STATE_DIR", "TIDEGATE_ENDPOINT", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(paths, "SERVICE_RUNTIME", tmp_path / "service-run")
    monkeypatch.setattr(paths, "SERVICE_STATE", tmp_path / "service-state")
    return paths.SERVICE_RUNTIME, paths.SERVICE_STATE


def test_the_services_user_finds_the_services_folders_without_its_environment(machine):
    for folder in machine:
        folder.mkdir()
    assert (paths.runtime_root(), paths.state_root()) == machine


def test_where_nothing_is_installed_a_person_keeps_to_folders_of_their_own(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert paths.runtime_root() == tmp_path / "tidegate"
    assert paths.state_root() == tmp_path / ".local/state/tidegate"


@pytest.mark.parametrize(("user", "said"), [(0, "runuser -u"), (12345, "sudo -u")])
def test_folders_of_somebody_else_are_refused_with_the_command_that_works(machine, monkeypatch, user, said):
    folder = machine[1]
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 4321, 4321)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(PermissionError, match=said):
        paths.private_folder(folder)


def test_who_may_not_look_for_a_gateway_is_told_which_group_to_join(machine, monkeypatch):
    machine[0].mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != machine[0] and allowed(path, mode))
    with pytest.raises(NoAnswer, match=r"adduser \S+ tidegate"):
        find_endpoint()


def test_two_sites_with_one_state_folder_do_not_run_side_by_side(tmp_path):
    """Each has a runtime folder of its own, as two people on one machine have, or one with another environment."""
    for name in ("a", "b", "state"):
        (tmp_path / name).mkdir()
    first, second = (SiteLock("hall", tmp_path / name, tmp_path / "state") for name in ("a", "b"))
    first.acquire()
    with pytest.raises(SiteBusy, match="already run by process"):
        second.acquire()
    first.release()
    second.acquire()
    assert not second.problem
    second.release()


def test_a_state_folder_that_takes_no_lock_keeps_no_site_from_running_and_is_told(tmp_path):
    lock = SiteLock("hall", tmp_path, tmp_path / "gone")
    lock.acquire()
    assert "a second site in that folder would not be noticed" in lock.problem
    lock.release()
