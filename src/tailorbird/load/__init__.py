"""Load: a client that asks a server as fast, or as unevenly, as real traffic would, and says what it felt."""
