"""Quantising: a normalised graph brought to INT8, whole or in part, in the style its runtime wants."""
