//! PyTorch checkpoint files without executing them.
