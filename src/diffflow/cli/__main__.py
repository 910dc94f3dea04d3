"""`python -m diffflow.cli train ...`, and so `accelerate launch -m diffflow.cli train ...` on many processes."""

import sys

from diffflow.cli import main

sys.exit(main())
