"""Triggers: the operator checks them, reads from the gateways what they do, and writes their status."""
