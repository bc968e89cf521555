"""Kappa's Python runtime: the server inside an instance. Functions may use `emit` and `EmitError`."""

from kappa_runtime.emitting import EmitError, emit

__all__ = ["EmitError", "emit"]
