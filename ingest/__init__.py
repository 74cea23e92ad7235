"""Exchange to events: capture, decoders, books."""
