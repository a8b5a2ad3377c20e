//! Chunked arrays on disk: the seven Zarr v2 stores of an ELEPHANT dataset.
