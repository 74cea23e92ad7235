"""What a feature is worth before a model is fitted, and what became of its rows."""
