"""Delivery against peers that misbehave, and against real ones."""
