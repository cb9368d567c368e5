"""One suite of checks of the protocol, for any server by its addresses: for ours, and for the real Triton."""
