"""Where events come from: one small module for each kind, all behind the interface in `kappa_gateway.events.source`."""
