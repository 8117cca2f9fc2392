"""Sets of coupled channels: which to keep, what they cost, how they are cut."""
