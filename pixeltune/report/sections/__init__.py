"""The parts of a report that are no figures: each a function of the snapshot that returns plain data."""
