"""Market events to bars: the clocks, the book, and the one pass that serves a day and a live event."""
