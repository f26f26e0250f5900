"""One of each that ckptswap can be given: a model source, a data source, a metric, a format and an executor."""
