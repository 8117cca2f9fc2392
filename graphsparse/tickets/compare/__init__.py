"""Comparisons of finders: the plan, its runs, what may be said of them."""
