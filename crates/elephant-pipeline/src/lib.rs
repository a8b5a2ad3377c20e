//! The use cases: generate a dataset, predict spots, keep models.
