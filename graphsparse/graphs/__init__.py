"""Graphs: any graph or table in, one inner edge list, the same kind out."""
