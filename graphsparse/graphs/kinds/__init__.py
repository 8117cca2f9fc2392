"""Kinds of graphs: each file reads one of them into the inner form and cuts it along a mask of its edges."""
