"""The compiled machine of the feature language: the walk over tiles, and the kernels of its operators."""
