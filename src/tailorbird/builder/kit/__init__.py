"""Build kits: the groundwork of a race, made on one machine and finished on another."""
