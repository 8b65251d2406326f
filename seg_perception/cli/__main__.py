"""`python -m seg_perception.cli` is `seg_perception`."""

import sys

from .main import main

sys.exit(main())
