"""The network: wire forms, HTTP, and the server put together. The only floor that knows status codes."""
