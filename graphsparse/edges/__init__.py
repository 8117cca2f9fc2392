"""Edges: which edges of a graph to keep."""
