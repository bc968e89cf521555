"""`python -m kappa_gateway`."""

import sys

from kappa_gateway.main import main

sys.exit(main())
