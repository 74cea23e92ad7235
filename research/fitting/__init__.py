"""Numbers in features that are fitted on a stretch before all that is learnt or judged."""
