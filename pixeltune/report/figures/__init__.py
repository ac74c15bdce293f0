"""The figures of a report, each a function of the snapshot that returns a `Chart`."""
