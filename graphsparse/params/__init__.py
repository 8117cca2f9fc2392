"""Parameters: which weights of a model to keep."""
