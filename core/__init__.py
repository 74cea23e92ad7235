"""What every stage shares: schema, store, configuration, units, run record."""
