"""Any torch module as a graph, and back."""
