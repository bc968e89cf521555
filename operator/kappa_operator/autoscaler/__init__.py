"""The autoscaler: exact signals from the gateways, pure decisions, one loop."""
