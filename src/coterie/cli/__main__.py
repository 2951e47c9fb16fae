"""``python -m coterie.cli``."""

from coterie.cli.entry import main

raise SystemExit(main())
