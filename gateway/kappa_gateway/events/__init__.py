"""Asynchronous invocations and events: accepted into JetStream, delivered from it, never lost.

accept (`front/`) -> stream -> deliver (`delivery/`) -> dispatch, as for any call. Sources (`sources/`) put events in.
"""
