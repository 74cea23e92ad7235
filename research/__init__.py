"""Events to bars to features to models."""
