"""The ground floor: values and errors every other floor speaks in. Standard library, numpy and msgspec only."""
