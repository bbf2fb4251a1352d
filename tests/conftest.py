"""Say what to do when the compiled core is missing, and let Ctrl-C reach the processes that the tests start."""

import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts its background jobs so, and they hand it on
    signal.signal(signal.SIGINT, signal.default_int_handler)

try:
    import tidegate.ext.abi.image  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise RuntimeError("the compiled core is not built: run `make build` first") from error
