"""`python -m modeling_minigpt` is the `minigpt` command."""

import sys

from .cli_minigpt import main

sys.exit(main())
