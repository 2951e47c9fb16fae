"""``python -m coterie``."""

from coterie.cli.entry import main

raise SystemExit(main())
