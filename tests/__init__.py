"""The tests: unit (mirrors src), contract, protocol, integration, and project (about the project itself)."""
