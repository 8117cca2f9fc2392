"""Methods of sparse training beside each other: ``graphsparse bench sparse``."""
