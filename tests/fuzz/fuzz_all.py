"""All fuzz targets."""

import fuzz_binary
import fuzz_http
import fuzz_values

TARGETS = (*fuzz_http.TARGETS, *fuzz_values.TARGETS, *fuzz_binary.TARGETS)
