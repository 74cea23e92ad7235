"""Historical archives: what their files are called, how they are written, and how they become event tables."""
