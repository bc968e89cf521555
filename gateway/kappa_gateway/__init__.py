"""Kappa's gateway: routes HTTP and events to instances."""
