//! BigDataViewer HDF5/XML files: reading and writing.
