"""Models in service: instances, the hub of what is loaded, and the protocol's operations without a transport."""
