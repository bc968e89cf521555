"""All fuzz targets."""

import fuzz_binary
import fuzz_events
import fuzz_http
import fuzz_shapes
import fuzz_values

TARGETS = (*fuzz_http.TARGETS, *fuzz_values.TARGETS, *fuzz_binary.TARGETS, *fuzz_events.TARGETS, *fuzz_shapes.TARGETS)
