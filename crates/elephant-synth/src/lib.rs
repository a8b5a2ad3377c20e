//! Synthetic embryos with known lineage, written as a BigDataViewer movie.
