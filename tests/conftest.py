"""Say what to do when the compiled core is missing."""

try:
    import tidegate.ext.image  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise RuntimeError("the compiled core is not built: run `make build` first") from error
