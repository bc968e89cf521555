"""All fuzz targets."""

import fuzz_binary
import fuzz_credentials
import fuzz_events
import fuzz_http
import fuzz_shapes
import fuzz_sources
import fuzz_triggers
import fuzz_upstream
import fuzz_values
import fuzz_webhooks

_MODULES = (fuzz_http, fuzz_upstream, fuzz_values, fuzz_triggers, fuzz_binary, fuzz_events, fuzz_shapes)
TARGETS = tuple(
    target for module in (*_MODULES, fuzz_sources, fuzz_webhooks, fuzz_credentials) for target in module.TARGETS
)
