"""Export, the thin runner, journal."""
