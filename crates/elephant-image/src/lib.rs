//! Pure voxel code: normalisation, filters, connected components, moments.
