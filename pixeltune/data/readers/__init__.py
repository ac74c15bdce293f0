"""One reader a kind of source: DataConfig -> RawData. What they need beyond numpy they import when called."""
