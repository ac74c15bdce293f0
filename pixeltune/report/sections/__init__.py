"""The parts of a report other than figures: functions of the snapshot that return plain data."""
