"""Receiving: who gets in, what is understood, and when it counts as received."""
