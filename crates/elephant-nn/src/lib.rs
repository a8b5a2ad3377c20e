//! The U-Net, its tiling and the thread that owns the device; the only libtorch dependency.
