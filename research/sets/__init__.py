"""The features of the catalogue, one module for a group of named sets."""
