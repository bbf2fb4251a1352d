"""Say what to do when the compiled core is missing, and let Ctrl-C reach the processes that the tests start."""

import signal

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts its background jobs so, and they hand it on
    signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    import tidegate.ext.abi.image  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise RuntimeError("the compiled core is not built: run `make build` first") from error

# Files that take minutes begin first: workers take whole files, and none should be left alone with one of these.
LONGEST = (
    "tests/test_wheel.py",
    "tests/world/test_minutes.py",
    "tests/runtime/cli/test_install_page.py",
    "tests/world/faults/test_failing_libc.py",
    "tests/bench/test_benches.py",
    "tests/runtime/console/test_console_site.py",
    "tests/runtime/cli/test_remote_page.py",
    "tests/world/test_processes.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)
