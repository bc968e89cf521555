"""`python -m kappa_operator`."""

import sys

from kappa_operator.main import main

sys.exit(main())
