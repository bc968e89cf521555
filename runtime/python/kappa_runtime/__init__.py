"""Kappa's Python runtime: the server inside an instance."""
