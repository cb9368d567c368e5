"""Figures: what a build found, drawn and tabled for people, as HTML and SVG without script or network."""
