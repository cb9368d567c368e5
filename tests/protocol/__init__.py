"""The protocol as clients meet it: golden bodies, the official client, raw sockets."""
