"""Edge scores, one family a file; each registers itself in `graphsparse.edges.score_table.SCORES`, which scans them."""
