"""Ticket finders: one a file, all called alike."""
