"""Metanetworks learn: objectives, training, and the networks they learn on."""
