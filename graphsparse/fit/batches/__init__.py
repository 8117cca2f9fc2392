"""Training in mini-batches: who is sampled, how a batch is cut out, and evaluation on the whole graph in chunks."""
