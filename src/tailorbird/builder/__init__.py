"""From a source to a bundle: normalise, candidates, build, gate, measure, choose."""
