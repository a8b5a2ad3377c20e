//! The HTTP interface: one folder per API family.
