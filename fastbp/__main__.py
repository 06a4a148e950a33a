"""`python -m fastbp` is the command `fastbp`."""

from .cli import main

raise SystemExit(main())
