"""The fastest module on this machine that computes what a ticket's model computes on the ticket's graph."""
